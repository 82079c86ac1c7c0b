<?php
// The live page, and what its browsers ask for.

namespace Demo;

require_once __DIR__ . '/live.php';
require_once __DIR__ . '/page.php';

function answer_live(): void
{
    dbconn();
    $visitor = visitor();
    try {
        $config = json_encode(browser_config($visitor), JSON_THROW_ON_ERROR);
    } catch (\RuntimeException $error) {
        http_response_code(503);
        page('Live', '<section class="hero"><p class="verdict bad">no push server</p><h1>Live</h1><p>' . text($error->getMessage()) . '</p></section>');
        return;
    }
    page('Live', '<section class="hero"><p class="verdict" id="state">connecting</p><h1>Live</h1>
        <p>Open this page in a second browser: what is said here is heard there. You are <b>' . text($visitor['name']) . '</b>.</p></section>
        <div class="live" id="live" data-config="' . text($config) . '">
        <section class="panel"><h2>Chat</h2><ol class="lines" id="chat" aria-live="polite"></ol>
        <form id="say"><input type="text" name="text" maxlength="' . LONGEST_TEXT . '" required autocomplete="off" aria-label="Say something">
        <button class="button">Say</button></form></section>
        <section class="panel"><h2>Online</h2><ul class="people" id="online"></ul>
        <h2>Call</h2><p class="call" id="call" aria-live="polite">No call.</p>
        <p><button class="button" id="answer" hidden>Answer</button> <button class="button" id="hangup" hidden>Hang up</button></p>
        <ol class="lines" id="events"></ol></section></div>', '', '/live.js');
}

/** A form of the live page; $act does what it asks for. */
function answer_live_form(callable $act): void
{
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    dbconn();
    $visitor = visitor();
    try {
        if (($_SERVER['REQUEST_METHOD'] ?? '') !== 'POST' || !hash_equals($visitor['token'], (string) ($_POST['token'] ?? ''))) {
            http_response_code(403);
            echo json_encode(['error' => 'The page was too old; load it again.']), "\n";
            return;
        }
        echo json_encode($act($visitor), JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR), "\n";
    } catch (\Throwable $error) {
        http_response_code(503);
        echo json_encode(['error' => $error->getMessage()], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    }
}

function answer_say(): void
{
    answer_live_form(function (array $visitor): array {
        say($visitor, (string) ($_POST['text'] ?? ''));
        return [];
    });
}

function answer_call(): void
{
    answer_live_form(function (array $visitor): array {
        call($visitor, (int) ($_POST['to'] ?? 0), (string) ($_POST['command'] ?? ''));
        return [];
    });
}

/** Who is online. `new`: this one has just come, and the others shall look again. */
function answer_online(): void
{
    answer_live_form(function (array $visitor): array {
        if (isset($_POST['new'])) {
            tell([shared_channel()], 'online', 'userStatusChange', ['user_id' => $visitor['id'], 'online' => true], 0);
        }
        return online();
    });
}
