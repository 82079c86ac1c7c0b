<?php
// Who answers, and that PHP does.
header('Cache-Control: no-store');
echo getenv('BITRIX_NODE') ?: gethostname(), "\n";
