<?php
// Written by bitrix-node; changes here are lost.
$DBType = 'mysql';
$DBHost = {{database_host}};
$DBName = {{database}};
$DBLogin = {{database_user}};
$DBPassword = {{password}};
$DBDebug = false;
$DBDebugToFile = false;

define('BX_USE_MYSQLI', true);
define('DBPersistent', false);
define('DELAY_DB_CONNECT', true);
// Other engines are neither safe over a power cut nor replicated.
define('MYSQL_TABLE_TYPE', 'INNODB');
define('BX_UTF', true);

define('CACHED_b_file', 3600);
define('CACHED_b_file_bucket_size', 10);
define('CACHED_b_lang', 3600);
define('CACHED_b_option', 3600);
define('CACHED_b_lang_domain', 3600);
define('CACHED_b_site_template', 3600);
define('CACHED_b_event', 3600);
define('CACHED_b_agent', 3660);
define('CACHED_menu', 3600);

define('BX_FILE_PERMISSIONS', 0644);
define('BX_DIR_PERMISSIONS', 0755);
@umask(~(BX_FILE_PERMISSIONS | BX_DIR_PERMISSIONS) & 0777);

define('BX_TEMPORARY_FILES_DIRECTORY', {{temporary}});
define('BX_DISABLE_INDEX_PAGE', true);

// Scripts on the command line have no request that names the portal.
if (PHP_SAPI === 'cli' && empty($_SERVER['SERVER_NAME'])) {
    $_SERVER['SERVER_NAME'] = $_SERVER['HTTP_HOST'] = {{domain}};
}
