<?php
// Answers every address that has no file of its own.

require_once __DIR__ . '/modules/demo/portal.php';
require_once __DIR__ . '/modules/demo/routes.php';

$path = rawurldecode(explode('?', $_SERVER['REQUEST_URI'] ?? '/', 2)[0]);
$route = Demo\route($path);
if ($route === null) {
    Demo\answer_not_found($path);
} else {
    $route[0](...$route[1]);
}
