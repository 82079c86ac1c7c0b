<?php
// A user's session counts the visits: who finds one gone begins again.
header('Cache-Control: no-store');
session_start();
$visits = ($_SESSION['visits'] ?? 0) + 1;
$_SESSION['visits'] = $visits;
session_write_close();
echo $visits, "\n";
