<?php
// The start page: a card for each check, and the files.

namespace Demo;

require_once __DIR__ . '/bitrix/modules/demo/checks.php';
require_once __DIR__ . '/bitrix/modules/demo/files.php';
require_once __DIR__ . '/bitrix/modules/demo/page.php';

/** The visitor's own session: [visits, form token, notice of the last upload], or null without sessions. */
function visit(): ?array
{
    try {
        session_start();
    } catch (\Throwable) {
        return null;
    }
    $visits = $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    $token = $_SESSION['token'] ??= bin2hex(random_bytes(16));
    $notice = $_SESSION['notice'] ?? null;
    unset($_SESSION['notice']);
    session_write_close();
    return [$visits, $token, $notice];
}

function cards(array $checks): string
{
    $html = '';
    foreach ($checks as $name => $check) {
        $class = $check['ok'] ? 'good' : 'bad';
        $html .= "<li class=\"card $class\" id=\"$name\"><h2>" . text(CHECKS[$name][0])
            . '<span class="state">' . ($check['ok'] ? 'good' : 'failed') . '</span></h2>'
            . '<p>' . text($check['detail']) . '</p>'
            . '<p class="ms">' . number_format($check['ms'], 1) . ' ms</p></li>';
    }
    return "<ul class=\"cards\">$html</ul>";
}

function hero(array $result, ?array $visit): string
{
    $count = count($result['checks']);
    $bad = count(array_filter($result['checks'], fn ($check) => !$check['ok']));
    $visits = $visit === null ? '' : ' This is page view ' . $visit[0] . ' of your session.';
    return '<section class="hero"><p class="verdict ' . ($bad === 0 ? 'good">Ready' : 'bad">Not ready') . '</p><h1>'
        . ($bad === 0 ? "All $count checks are green" : "$bad of $count checks " . ($bad === 1 ? 'fails' : 'fail'))
        . '</h1><p>Each card does what a portal does, now, on node <b>' . text($result['node']) . "</b>.$visits</p></section>";
}

function files(?array $visit): string
{
    $rows = '';
    foreach (uploaded_files() as $name => [$size, $time]) {
        $rows .= '<tr><td><a href="/upload/demo/' . rawurlencode($name) . '" download>' . text($name) . '</a></td><td>'
            . bytes($size) . '</td><td>' . gmdate('Y-m-d H:i', $time) . ' UTC</td></tr>';
    }
    $list = $rows === '' ? '<p class="empty">No files yet. Send one and get it back.</p>'
        : "<table><thead><tr><th>File</th><th>Size</th><th>Received</th></tr></thead><tbody>$rows</tbody></table>";
    if ($visit === null) {
        return "<section class=\"panel\" id=\"files\"><h2>Files</h2><p>Sending files needs sessions.</p>$list</section>";
    }
    [, $token, $notice] = $visit;
    $notice = $notice === null ? '' : "<p class=\"notice $notice[0]\" role=\"status\">" . text($notice[1]) . '</p>';
    return '<section class="panel" id="files"><h2>Files</h2>' . $notice
        . '<form action="/upload.php" method="post" enctype="multipart/form-data">'
        . '<input type="hidden" name="token" value="' . text($token) . '">'
        . '<input type="file" name="file" required aria-label="File to send"><button class="button">Send</button>'
        . '<progress value="0" max="1" hidden></progress></form>' . $list . '</section>';
}

function links(): string
{
    return '<nav class="links" aria-label="Further addresses"><a href="/hello/world/">A page without a file</a>'
        . '<a href="/live/">Chat, online list, calls</a><a href="/no/such/page">A page that is not there</a><a href="/check.json">These checks as JSON</a>'
        . '<a href="/health">Health</a></nav>';
}

const SCRIPT = <<<'JS'
// The form works without this; with it, a large file shows how far it has come.
const form = document.querySelector('form');
form?.addEventListener('submit', event => {
  event.preventDefault();
  const bar = form.querySelector('progress'), button = form.querySelector('button');
  const request = new XMLHttpRequest();
  bar.hidden = false;
  button.disabled = true;
  request.upload.onprogress = e => { if (e.lengthComputable) bar.value = e.loaded / e.total; };
  request.onloadend = () => location.reload();
  request.open('POST', form.action);
  // Without it the answer is a redirect, whose page would use up the notice before the reload.
  request.setRequestHeader('X-Requested-With', 'XMLHttpRequest');
  request.send(new FormData(form));
});
JS;

$visit = visit();
$result = run_checks();
page('bitrix-node demo portal', hero($result, $visit) . cards($result['checks']) . files($visit) . links(), SCRIPT);
