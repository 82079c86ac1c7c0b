<?php
// What every script of the demo portal needs: its settings, the database, the cache, the node's name.

namespace Demo;

use mysqli;
use RuntimeException;

const TIMEOUT_SECONDS = 3;

// A warning is a failure here; each check reports its own.
set_error_handler(function (int $level, string $message, string $file, int $line): bool {
    if (!(error_reporting() & $level)) {
        return false;
    }
    throw new \ErrorException($message, 0, $level, $file, $line);
});

function root(): string
{
    return rtrim($_SERVER['DOCUMENT_ROOT'], '/');
}

/** The node that runs this script. */
function node(): string
{
    return getenv('BITRIX_NODE') ?: gethostname();
}

/** The value of a section of bitrix/.settings.php. */
function setting(string $section): array
{
    static $settings = null;
    $settings ??= require root() . '/bitrix/.settings.php';
    return $settings[$section]['value'] ?? throw new RuntimeException(".settings.php has no section $section");
}

/** Reads bitrix/php_interface/dbconn.php, which defines constants. Its database: host, name, login, password. */
function dbconn(): array
{
    static $database = null;
    if ($database === null) {
        require root() . '/bitrix/php_interface/dbconn.php';
        $database = [$DBHost, $DBName, $DBLogin, $DBPassword];
    }
    return $database;
}

function database(): mysqli
{
    static $connection = null;
    if ($connection === null) {
        $wanted = setting('connections')['default'];
        [$host, $port] = explode(':', $wanted['host']) + [1 => 3306];
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $new = mysqli_init();
        $new->options(MYSQLI_OPT_CONNECT_TIMEOUT, TIMEOUT_SECONDS);
        $new->real_connect($host, $wanted['login'], $wanted['password'], $wanted['database'], (int) $port);
        $new->set_charset('utf8mb4');
        $connection = $new;
    }
    return $connection;
}

/** Does $work, and once more with fresh tables when they were missing. */
function with_tables(callable $work): mixed
{
    try {
        return $work(database());
    } catch (\mysqli_sql_exception $error) {
        $no_such_table = 1146;
        if ($error->getCode() !== $no_such_table) {
            throw $error;
        }
    }
    database()->query('CREATE TABLE IF NOT EXISTS demo_check (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, value VARCHAR(64) NOT NULL) ENGINE=InnoDB');
    database()->query('CREATE TABLE IF NOT EXISTS demo_agent (
        name VARCHAR(32) NOT NULL PRIMARY KEY, ran_at BIGINT NOT NULL, started_by VARCHAR(128) NOT NULL) ENGINE=InnoDB');
    database()->query('CREATE TABLE IF NOT EXISTS demo_visitor (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, channel CHAR(32) NOT NULL, public_id CHAR(32) NOT NULL) ENGINE=InnoDB');
    database()->query("INSERT IGNORE INTO demo_agent VALUES ('heartbeat', 0, '')");
    return $work(database());
}

/** Runs the portal's agent unless it ran within $seconds. */
function run_agents(string $started_by, int $seconds = 0): void
{
    with_tables(function (mysqli $database) use ($started_by, $seconds) {
        $update = $database->prepare("UPDATE demo_agent SET ran_at = UNIX_TIMESTAMP(), started_by = ?
            WHERE name = 'heartbeat' AND ran_at <= UNIX_TIMESTAMP() - ?");
        $update->bind_param('si', $started_by, $seconds);
        $update->execute();
        if ($database->query("SELECT 1 FROM demo_agent WHERE name = 'heartbeat'")->num_rows === 0) {
            $database->query("INSERT IGNORE INTO demo_agent VALUES ('heartbeat', UNIX_TIMESTAMP(), 'first run')");
        }
    });
}

/** Where uploads lie, with a slash at the end. */
function upload_folder(): string
{
    $folder = root() . '/upload/demo/';
    if (!is_dir($folder)) {
        @mkdir($folder, 0755, true);
    }
    return $folder;
}

function bytes(int|float $bytes): string
{
    foreach (['B', 'KiB', 'MiB', 'GiB'] as $unit) {
        if ($bytes < 1024 || $unit === 'GiB') {
            return round($bytes, $bytes < 10 && $unit !== 'B' ? 1 : 0) . ' ' . $unit;
        }
        $bytes /= 1024;
    }
}
