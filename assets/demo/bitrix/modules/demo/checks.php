<?php
// One function per thing that a portal needs. Each returns a sentence, or throws what is wrong.

namespace Demo;

use Memcached;
use mysqli;
use RuntimeException;

require_once __DIR__ . '/portal.php';

/** Name => [title, function]. */
const CHECKS = [
    'php' => ['PHP', 'check_php'],
    'settings' => ['Settings', 'check_settings'],
    'database' => ['Database', 'check_database'],
    'sessions' => ['Sessions', 'check_sessions'],
    'cache' => ['Cache', 'check_cache'],
    'files' => ['Files', 'check_files'],
    'upload' => ['Uploads', 'check_upload'],
    'agent' => ['Agent', 'check_agent'],
    'push' => ['Push', 'check_push'],
    'urlrewrite' => ['Addresses', 'check_urlrewrite'],
];

/** Runs every check: {"ok", "node", "checks": {name: {"ok", "ms", "detail"}}}. */
function run_checks(): array
{
    $checks = [];
    foreach (CHECKS as $name => [, $function]) {
        $started = hrtime(true);
        try {
            $detail = (__NAMESPACE__ . '\\' . $function)();
            $ok = true;
        } catch (\Throwable $error) {
            $detail = $error->getMessage();
            $ok = false;
        }
        $checks[$name] = ['ok' => $ok, 'ms' => round((hrtime(true) - $started) / 1e6, 1), 'detail' => $detail];
    }
    return ['ok' => !in_array(false, array_column($checks, 'ok'), true), 'node' => node(), 'checks' => $checks];
}

function expect(bool $holds, string $else): void
{
    $holds || throw new RuntimeException($else);
}

function check_php(): string
{
    $wanted = ['mysqli', 'memcached', 'mbstring', 'json', 'session', 'openssl', 'gd', 'curl', 'xml', 'zlib'];
    $missing = array_filter($wanted, fn ($name) => !extension_loaded($name));
    expect($missing === [], 'missing extensions: ' . implode(', ', $missing));
    $cached = function_exists('opcache_get_status') && @opcache_get_status(false);
    return 'PHP ' . PHP_VERSION . ' (' . PHP_SAPI . ') with ' . count($wanted) . ' extensions, opcode cache '
        . ($cached ? 'on' : 'off');
}

function check_settings(): string
{
    $connection = setting('connections')['default'];
    [$host, $name, $login, $password] = dbconn();
    expect(
        [$host, $name, $login, $password]
            === [$connection['host'], $connection['database'], $connection['login'], $connection['password']],
        'dbconn.php and .settings.php name different databases',
    );
    expect(strlen(setting('crypto')['crypto_key']) >= 32, 'the crypto key is shorter than 32 characters');
    expect(is_writable(BX_TEMPORARY_FILES_DIRECTORY), BX_TEMPORARY_FILES_DIRECTORY . ' cannot be written');
    return "database $name at $host, the same in .settings.php and dbconn.php";
}

function check_database(): string
{
    return with_tables(function (mysqli $database) {
        $value = bin2hex(random_bytes(8)) . ' Привет 🙂';
        $insert = $database->prepare('INSERT INTO demo_check (value) VALUES (?)');
        $insert->bind_param('s', $value);
        $insert->execute();
        $id = $database->insert_id;
        $select = $database->prepare('SELECT value FROM demo_check WHERE id = ?');
        $select->bind_param('i', $id);
        $select->execute();
        expect($select->get_result()->fetch_row() === [$value], "row $id is not what was written");
        // Rows of earlier checks; those of parallel ones stay.
        $database->query('DELETE FROM demo_check WHERE id < ' . max(0, $id - 100));
        [$version, $isolation, $mode] = $database->query('SELECT VERSION(), @@tx_isolation, @@sql_mode')->fetch_row();
        expect($isolation === 'READ-COMMITTED', "transaction isolation is $isolation, not READ-COMMITTED");
        expect($mode === '', "sql_mode is $mode, not empty");
        return "MariaDB $version, row $id written and read back";
    });
}

function check_sessions(): string
{
    $handler = ini_get('session.save_handler');
    expect($handler === 'memcached', "session.save_handler is $handler, not memcached");
    $options = ['use_cookies' => 0, 'cache_limiter' => ''];
    $value = bin2hex(random_bytes(8));
    session_id(session_create_id());
    session_start($options);
    $id = session_id();
    $_SESSION['check'] = $value;
    session_write_close();

    $stored = cache(session_server())->get(ini_get('memcached.sess_prefix') . $id);
    session_id($id);
    session_start($options);
    $read = $_SESSION['check'] ?? null;
    session_destroy();
    expect($read === $value, 'a second request does not see what the first one wrote');
    expect(is_string($stored) && str_contains($stored, $value), 'the session is not in memcached');
    return 'a value outlives its request, in memcached at ' . implode(':', session_server()) . lock_of_the_portal();
}

/** Takes the lock that the portal's own session handler takes, with the extension and the commands that it uses. */
function lock_of_the_portal(): string
{
    if (!extension_loaded('memcache')) {
        return '';
    }
    $general = setting('session')['handlers']['general'];
    $server = new \Memcache();
    $server->connect($general['host'], $general['port'], TIMEOUT_SECONDS);
    $key = 'demo' . bin2hex(random_bytes(8)) . '.lock';
    expect($server->add($key, 1, 0, 55), 'the lock cannot be taken');
    expect(!$server->add($key, 1, 0, 55), 'the lock can be taken twice');
    expect($server->increment($key) === 2, 'the lock does not count those who wait');
    expect($server->replace($key, 0, 0, 1), 'the lock cannot be released');
    expect($server->increment($key) === 1, 'a released lock cannot be taken again');
    $server->delete($key);
    return ', locks hold';
}

function session_server(): array
{
    [$host, $port] = explode(':', explode(',', ini_get('session.save_path'))[0]) + [1 => 11211];
    return [$host, (int) $port];
}

function cache(array $server): Memcached
{
    $cache = new Memcached();
    $cache->setOption(Memcached::OPT_CONNECT_TIMEOUT, TIMEOUT_SECONDS * 1000);
    $cache->addServer($server[0], $server[1]);
    return $cache;
}

function check_cache(): string
{
    ['host' => $host, 'port' => $port] = setting('cache')['memcached'];
    $cache = cache([$host, $port]);
    $key = 'demo:' . bin2hex(random_bytes(8));
    $told = fn () => $cache->getResultMessage();
    $text = str_repeat('0123456789abcdef', 1000);
    expect($cache->set($key, $text, 60), 'set: ' . $told());
    expect($cache->get($key) === $text, 'get: ' . $told());
    expect(!$cache->add($key, 'other', 60), 'add has overwritten an item');
    expect($cache->set("$key:n", 41, 60) && $cache->increment("$key:n") === 42, 'increment: ' . $told());
    $extended = $cache->get("$key:n", null, Memcached::GET_EXTENDED);
    expect($cache->cas($extended['cas'], "$key:n", 50, 60), 'cas: ' . $told());
    expect(!$cache->cas($extended['cas'], "$key:n", 51, 60), 'cas has overwritten a newer item');
    expect($cache->deleteMulti([$key, "$key:n"]) !== false && $cache->get($key) === false, 'delete: ' . $told());
    $version = current($cache->getVersion() ?: ['unknown']);
    return "version $version at $host:$port: set, get, add, increment, cas, delete";
}

function check_files(): string
{
    $name = upload_folder() . 'check-' . bin2hex(random_bytes(8));
    $content = random_bytes(100000);
    try {
        expect(file_put_contents("$name.new", $content, LOCK_EX) === strlen($content), 'the file is cut short');
        rename("$name.new", $name);
        expect(file_get_contents($name) === $content, 'the file is not what was written');
        expect(!file_exists("$name.new"), 'the old name is still there');
    } finally {
        @unlink("$name.new");
        @unlink($name);
    }
    return '100 kB written, renamed, read back; ' . bytes(disk_free_space(upload_folder())) . ' free';
}

function check_upload(): string
{
    expect((bool) ini_get('file_uploads'), 'file_uploads is off');
    $folder = ini_get('upload_tmp_dir') ?: sys_get_temp_dir();
    $name = tempnam($folder, 'demo');
    expect(dirname($name) === rtrim($folder, '/'), "uploads cannot be received in $folder");
    $target = upload_folder() . basename($name);
    try {
        rename($name, $target);
        expect(is_file($target), 'a received file cannot be moved to its place');
    } finally {
        @unlink($name);
        @unlink($target);
    }
    return 'up to ' . bytes(ini_parse_quantity_of('upload_max_filesize')) . ' a file, received in ' . $folder;
}

/** ini_parse_quantity() came with PHP 8.2. */
function ini_parse_quantity_of(string $name): int
{
    preg_match('/^(\d+)([KMG]?)/i', ini_get($name), $parts);
    return (int) $parts[1] << ['' => 0, 'K' => 10, 'M' => 20, 'G' => 30][strtoupper($parts[2])];
}

function check_agent(): string
{
    // As in the portal: without cron, agents run on page views, once a minute at most.
    run_agents('a page view on ' . node(), 60);
    $row = database()->query("SELECT UNIX_TIMESTAMP() - ran_at, started_by FROM demo_agent WHERE name = 'heartbeat'");
    [$age, $started_by] = $row->fetch_row();
    expect($age <= 180, "last run $age s ago, by $started_by");
    return "last run $age s ago, by $started_by";
}

function check_push(): string
{
    require_once __DIR__ . '/live.php';
    try {
        $address = setting('pull')['path_to_publish'];
    } catch (RuntimeException) {
        return 'no push server here';
    }
    // To nobody: no browser listens to a channel of this moment.
    $channel = bin2hex(random_bytes(16));
    tell([$channel], 'demo', 'check', [], 1);
    $online = json_decode(ask_push_server($channel, ['method' => 'GET']), true);
    expect(($online['infos'] ?? null) === [], 'the push server takes somebody for online who never was');
    return "a message published to $address";
}

function check_urlrewrite(): string
{
    require_once __DIR__ . '/routes.php';
    expect(route('/hello/world/') !== null, '/hello/world/ has no page');
    expect(route('/no/such/page') === null, '/no/such/page has a page');
    $through = str_starts_with($_SERVER['REQUEST_URI'] ?? '', '/check.json');
    return $through ? 'this answer came through bitrix/urlrewrite.php' : 'bitrix/urlrewrite.php knows its pages';
}
