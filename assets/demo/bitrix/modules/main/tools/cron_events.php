<?php
// The portal's agents, started by cron on one node every minute.

if (PHP_SAPI !== 'cli') {
    http_response_code(403);
    exit;
}
$_SERVER['DOCUMENT_ROOT'] = dirname(__DIR__, 4);
require_once __DIR__ . '/../../demo/portal.php';
Demo\run_agents('cron on ' . Demo\node());
