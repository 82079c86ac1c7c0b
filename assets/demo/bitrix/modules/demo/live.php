<?php
// What the push server tells browsers: whom this portal lets listen, what it says to them, who is online.

namespace Demo;

use mysqli;
use RuntimeException;

require_once __DIR__ . '/portal.php';

/** Visitors that are remembered; the oldest go. */
const MOST_VISITORS = 100;
/** Of a chat, for those who come later. */
const KEPT_SECONDS = 3600;
/** A call that is not answered by then has never been. */
const CALL_SECONDS = 5;
const LONGEST_TEXT = 500;
/** Commands of a call, and for how long they are kept. */
const CALL_COMMANDS = ['incoming' => CALL_SECONDS, 'answer' => KEPT_SECONDS, 'hangup' => KEPT_SECONDS];

/** Data with the signature by which the push server knows that this portal has given it. */
function signature(string $data): string
{
    $pull = setting('pull');
    return hash_hmac($pull['signature_algo'], $data, $pull['signature_key']);
}

/** The channel that everybody listens to. */
function shared_channel(): string
{
    return substr(signature('demo shared channel'), 0, 32);
}

/** The visitor of this session: id, name, channel, public_id. */
function visitor(): array
{
    session_start();
    $_SESSION['token'] ??= bin2hex(random_bytes(16));
    $visitor = $_SESSION['visitor'] ?? null;
    if ($visitor === null || find_visitor($visitor['id']) === null) {
        $visitor = $_SESSION['visitor'] = new_visitor();
    }
    $visitor['token'] = $_SESSION['token'];
    session_write_close();
    return $visitor;
}

function new_visitor(): array
{
    return with_tables(function (mysqli $database) {
        [$channel, $public_id] = [bin2hex(random_bytes(16)), bin2hex(random_bytes(16))];
        $insert = $database->prepare('INSERT INTO demo_visitor (channel, public_id) VALUES (?, ?)');
        $insert->bind_param('ss', $channel, $public_id);
        $insert->execute();
        $id = (int) $database->insert_id;
        $database->query('DELETE FROM demo_visitor WHERE id <= ' . ($id - MOST_VISITORS));
        return ['id' => $id, 'name' => "Visitor $id", 'channel' => $channel, 'public_id' => $public_id];
    });
}

function find_visitor(int $id): ?array
{
    $row = with_tables(fn (mysqli $database) => $database->query(
        "SELECT id, channel, public_id FROM demo_visitor WHERE id = $id"
    )->fetch_assoc());
    return $row === null ? null : ['id' => (int) $row['id'], 'name' => "Visitor $row[id]"] + $row;
}

/** What a browser needs to listen, and to write to those whom it is given. */
function browser_config(array $visitor): array
{
    $pull = setting('pull');
    $own = "$visitor[channel]:$visitor[public_id]";
    $paths = ['path_to_websocket', 'path_to_listener', 'path_to_publish_web'];
    return [
        'id' => $visitor['id'],
        'name' => $visitor['name'],
        'token' => $visitor['token'],
        'channels' => "$own." . signature($own) . '/' . shared_channel() . '.' . signature(shared_channel()),
        'own' => "$own." . signature($own),
        'plain' => array_map(fn ($path) => $pull[$path], $paths),
        'secure' => array_map(fn ($path) => $pull[$path . '_secure'], $paths),
    ];
}

/** Tells everybody who listens to these channels. */
function tell(array $channels, string $module, string $command, array $params, int $expiry): void
{
    $body = [
        'module_id' => $module,
        'command' => $command,
        'params' => $params,
        'extra' => ['server_time_unix' => microtime(true), 'server_name' => node(), 'revision_web' => 19],
    ];
    ask_push_server(implode('/', $channels), [
        'method' => 'POST',
        'content' => json_encode($body, JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE | JSON_THROW_ON_ERROR),
        'header' => "Content-Type: text/plain\r\nMessage-Expiry: $expiry\r\n",
    ]);
}

/** Visitors who are online, as the push server says. */
function online(): array
{
    $rows = with_tables(fn (mysqli $database) => $database->query(
        'SELECT id, channel FROM demo_visitor ORDER BY id DESC LIMIT ' . MOST_VISITORS
    )->fetch_all(MYSQLI_ASSOC));
    if ($rows === []) {
        return [];
    }
    $answer = json_decode(ask_push_server(implode('/', array_column($rows, 'channel')), ['method' => 'GET']), true);
    $channels = array_column($answer['infos'], 'channel');
    $there = array_filter($rows, fn ($row) => in_array($row['channel'], $channels, true));
    return array_values(array_map(fn ($row) => ['id' => (int) $row['id'], 'name' => "Visitor $row[id]"], $there));
}

function ask_push_server(string $channels, array $request): string
{
    $context = stream_context_create(['http' => $request + ['timeout' => TIMEOUT_SECONDS]]);
    return file_get_contents(setting('pull')['path_to_publish'] . "?CHANNEL_ID=$channels", false, $context);
}

/** What one browser wants to say to all. */
function say(array $visitor, string $said): void
{
    $said = trim(mb_substr($said, 0, LONGEST_TEXT));
    if ($said !== '') {
        tell([shared_channel()], 'demo', 'say', ['id' => $visitor['id'], 'name' => $visitor['name'], 'text' => $said], KEPT_SECONDS);
    }
}

/** A step of a call. Both ends learn each other's public id with a signature, so that further steps need no portal. */
function call(array $visitor, int $to, string $command): void
{
    $expiry = CALL_COMMANDS[$command] ?? throw new RuntimeException('There is no such step of a call.');
    $other = find_visitor($to) ?? throw new RuntimeException('Nobody has this number any more.');
    tell([$other['channel']], 'call', "Call::$command", [
        'senderId' => $visitor['id'],
        'senderName' => $visitor['name'],
        'publicId' => $visitor['public_id'],
        'signature' => signature("public:$visitor[public_id]"),
    ], $expiry);
}
