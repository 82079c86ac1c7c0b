<?php
// The portal's jobs, replaced by one that says all the time that it runs: a line each 20 ms, on the disk of its own machine, with the time
// of the clock that all observers share. Two nodes that run it at one instant are seen by their lines.

if (PHP_SAPI !== 'cli') {
    http_response_code(403);
    exit;
}
const SECONDS = 50;
const EVERY = 20_000;

// The clocks of this machine are ahead of the observers' by what its time namespace says.
preg_match('/^monotonic\s+(-?\d+)/m', (string) @file_get_contents('/proc/self/timens_offsets'), $ahead);
$ahead = (int) ($ahead[1] ?? 0);
$out = fopen('@ACTS@/' . gethostname(), 'a');
$say = fn(string $what) => fwrite($out, sprintf("%.4f %d %s\n", hrtime(true) / 1e9 - $ahead, getmypid(), $what));
$end = hrtime(true) + SECONDS * 1_000_000_000;
$say('begin');
while (hrtime(true) < $end) {
    usleep(EVERY);
    $say('act');
}
$say('end');
