<?php
// Adds 1 to a number in one session, N times; prints the last number and something that was kept beside it.
// Usage: session_count.php SESSION_ID N
session_id($argv[1]);
$last = null;
for ($i = 0; $i < (int)$argv[2]; $i++) {
    if (!session_start(['use_cookies' => 0, 'use_strict_mode' => 0, 'cache_limiter' => ''])) {
        fwrite(STDERR, "session_start failed in round $i\n");
        exit(1);
    }
    $before = $_SESSION['count'] ?? 0;
    usleep(200);
    $_SESSION['count'] = $last = $before + 1;
    $_SESSION['kept'] ??= str_repeat('ä', 3000);
    session_write_close();
}
echo $last, ' ', strlen($_SESSION['kept']), "\n";
