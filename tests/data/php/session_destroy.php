<?php
// Opens a session, prints its number, destroys it, opens it again and prints the number once more.
// Usage: session_destroy.php SESSION_ID
$options = ['use_cookies' => 0, 'use_strict_mode' => 0, 'cache_limiter' => ''];
session_id($argv[1]);
session_start($options) || exit(1);
echo $_SESSION['count'] ?? 'none', ' ';
session_destroy();
session_id($argv[1]);
session_start($options) || exit(1);
echo $_SESSION['count'] ?? 'none', "\n";
session_write_close();
