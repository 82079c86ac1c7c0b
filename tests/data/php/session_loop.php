<?php
// Adds 1 to a number in one session until the time is over. A line per round with times in nanoseconds of one clock of the machine:
// "W number begun opened closing closed" (written), "U …" (not known whether), "F begun ended" (not opened).
// Usage: session_loop.php SESSION_ID SECONDS HELD_MICROSECONDS
[, $id, $seconds, $held] = $argv;
$end = microtime(true) + (float)$seconds;
while (microtime(true) < $end) {
    $begun = hrtime(true);
    session_id($id);
    $is_open = @session_start(['use_cookies' => 0, 'use_strict_mode' => 0, 'cache_limiter' => '']);
    $opened = hrtime(true);
    if (!$is_open) {
        echo "F $begun $opened\n";
        usleep(20000);
        continue;
    }
    $number = ($_SESSION['number'] ?? 0) + 1;
    $_SESSION['number'] = $number;
    $_SESSION['kept'] ??= str_repeat('ä', 1500);
    usleep((int)$held);
    $closing = hrtime(true);
    // It answers true also where the handler has failed.
    error_clear_last();
    $is_written = @session_write_close() && error_get_last() === null;
    $closed = hrtime(true);
    echo $is_written ? 'W' : 'U', " $number $begun $opened $closing $closed\n";
    $_SESSION = [];
    usleep(4000);
}
