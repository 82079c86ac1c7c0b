<?php
// Calls of ext-memcache that the portal's older cache engine makes. Prints "ok" or the first call that went wrong.
// Usage: memcache_api.php HOST PORT
[, $host, $port] = $argv;
$m = new Memcache();

function same(string $what, mixed $wanted, mixed $got): void
{
    if ($wanted !== $got) {
        echo "$what: wanted ", var_export($wanted, true), ', got ', var_export($got, true), "\n";
        exit(1);
    }
}

same('connect', true, $m->pconnect($host, (int)$port));
foreach (['text', 42, 1.5, true, ['a' => [1]], str_repeat('z', 100000)] as $i => $value) {
    same("set $i", true, $m->set("k$i", $value, $i % 2 ? MEMCACHE_COMPRESSED : 0, 60));
    same("get $i", $value, $m->get("k$i"));
}
same('get many', ['k0' => 'text', 'k1' => 42], $m->get(['k0', 'k1', 'missing']));
same('add', true, $m->add('lock', 1, 0, 55));
same('add again', false, $m->add('lock', 1, 0, 55));
same('increment', 2, $m->increment('lock', 1));
same('replace', true, $m->replace('lock', '0', 0, 1));
same('increment to one', 1, $m->increment('lock', 1));
same('delete', true, $m->delete('k0'));
same('get deleted', false, $m->get('k0'));
$stats = $m->getStats();
same('stats', true, $stats['uptime'] > 0 && $stats['curr_items'] > 0);
foreach (['items', 'slabs', 'sizes'] as $kind) {
    same("stats $kind", true, is_array($m->getExtendedStats($kind)));
}
same('flush', true, $m->flush());
same('get flushed', false, $m->get('k1'));
echo "ok\n";
