<?php
// The frame of every page.

namespace Demo;

require_once __DIR__ . '/portal.php';

/** Text as HTML. */
function text(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

/** Sends a page; $script, or the file $source, runs in it. */
function page(string $title, string $body, string $script = '', string $source = ''): void
{
    $nonce = base64_encode(random_bytes(12));
    header('Content-Type: text/html; charset=UTF-8');
    header('Cache-Control: no-store');
    header("Content-Security-Policy: default-src 'none'; style-src 'self'; img-src data:; connect-src 'self';"
        . " script-src 'nonce-$nonce'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'");
    $style = '/style.css?' . filemtime(root() . '/style.css');
    $icon = 'data:image/svg+xml,' . rawurlencode('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        . '<rect width="16" height="16" rx="4" fill="#2563eb"/>'
        . '<path d="M4 8.5l2.7 2.7L12 5.5" stroke="#fff" stroke-width="2" fill="none"/></svg>');
    echo '<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>', text($title), '</title>
<link rel="icon" href="', text($icon), '">
<link rel="stylesheet" href="', text($style), '">
</head>
<body>
<header class="bar"><a href="/">bitrix-node demo portal</a><span>answered by <b>', text(node()), '</b></span></header>
<main>
', $body, '
</main>
', $script === '' ? '' : "<script nonce=\"$nonce\">\n$script\n</script>\n",
        $source === '' ? '' : "<script nonce=\"$nonce\" src=\"$source?" . filemtime(root() . $source) . "\"></script>\n", '</body>
</html>
';
}
