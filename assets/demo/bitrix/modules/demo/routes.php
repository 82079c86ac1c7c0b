<?php
// Addresses without a file of their own.

namespace Demo;

require_once __DIR__ . '/live_page.php';

const ROUTES = [
    '#^/check\.json$#' => 'answer_check',
    '#^/health/?$#' => 'answer_health',
    '#^/live/$#' => 'answer_live',
    '#^/live/say$#' => 'answer_say',
    '#^/live/call$#' => 'answer_call',
    '#^/live/online$#' => 'answer_online',
    '#^/hello/(?<name>[^/]{1,40})/$#u' => 'answer_hello',
];

/** [function, captured parts], or null. */
function route(string $path): ?array
{
    foreach (ROUTES as $pattern => $function) {
        if (preg_match($pattern, $path, $parts)) {
            return [__NAMESPACE__ . '\\' . $function, array_filter($parts, 'is_string', ARRAY_FILTER_USE_KEY)];
        }
    }
    return null;
}

function answer_check(): void
{
    require_once __DIR__ . '/checks.php';
    $result = run_checks();
    http_response_code($result['ok'] ? 200 : 503);
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    echo json_encode($result, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

/** That PHP answers, and nothing else: no database, no cache. */
function answer_health(): void
{
    header('Content-Type: text/plain');
    header('Cache-Control: no-store');
    echo 'ok ', node(), "\n";
}

function answer_hello(string $name): void
{
    require_once __DIR__ . '/page.php';
    page('Hello', '<section class="hero"><h1>Hello, ' . text($name) . '!</h1>
        <p>No file has this address: <code>bitrix/urlrewrite.php</code> made the page.</p>
        <p><a class="button" href="/">Back to the checks</a></p></section>');
}

function answer_not_found(string $path): void
{
    require_once __DIR__ . '/page.php';
    http_response_code(404);
    page('Page not found', '<section class="hero"><p class="verdict bad">404</p><h1>There is no such page</h1>
        <p><code>' . text(mb_strimwidth($path, 0, 80, '…')) . '</code> is neither a file nor a known address.</p>
        <p><a class="button" href="/">Back to the checks</a></p></section>');
}
