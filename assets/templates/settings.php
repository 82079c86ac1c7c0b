<?php
// Written by bitrix-node; changes here are lost. Further sections go into .settings_extra.php.
return [
    'utf_mode' => ['value' => true, 'readonly' => true],
    'cache_flags' => [
        'value' => ['config_options' => 3600.0, 'site_domain' => 3600.0],
        'readonly' => false,
    ],
    'cookies' => [
        'value' => ['secure' => {{https}}, 'http_only' => true],
        'readonly' => false,
    ],
    'exception_handling' => [
        'value' => [
            'debug' => false,
            'handled_errors_types' => E_ALL & ~E_DEPRECATED & ~E_NOTICE & ~E_WARNING,
            'exception_errors_types' => E_ALL & ~E_DEPRECATED & ~E_NOTICE & ~E_WARNING & ~E_USER_WARNING,
            'ignore_silence' => false,
            'assertion_throws_exception' => true,
            'assertion_error_type' => E_USER_ERROR,
            // Below bitrix/modules, which no web client can read.
            'log' => ['settings' => ['file' => 'bitrix/modules/error.log', 'log_size' => 1000000]],
        ],
        'readonly' => false,
    ],
    'crypto' => [
        'value' => ['crypto_key' => {{crypto_key}}],
        'readonly' => true,
    ],
    'connections' => [
        'value' => [
            'default' => [
                'className' => '\\Bitrix\\Main\\DB\\MysqliConnection',
                'host' => {{database_host}},
                'database' => {{database}},
                'login' => {{database_user}},
                'password' => {{password}},
                // Connect at the first query.
                'options' => 2.0,
            ],
        ],
        'readonly' => true,
    ],
    'cache' => [
        'value' => [
            'type' => 'memcached',
            'memcached' => ['host' => {{cache_host}}, 'port' => {{cache_port}}],
            'sid' => $_SERVER['DOCUMENT_ROOT'] . '#01',
            'use_lock' => true,
        ],
        'readonly' => false,
    ],
    'session' => [
        'value' => [
            'mode' => 'default',
            'handlers' => [
                'general' => ['type' => 'memcache', 'host' => {{cache_host}}, 'port' => {{cache_port}}],
            ],
        ],
        'readonly' => false,
    ],
{{pull}}];
