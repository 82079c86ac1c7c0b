<?php
// Calls of ext-memcached that the portal and its libraries make. Prints "ok" or the first call that went wrong.
// Usage: memcached_api.php HOST PORT binary|ascii
[, $host, $port, $protocol] = $argv;
$m = new Memcached();
$m->setOption(Memcached::OPT_BINARY_PROTOCOL, $protocol === 'binary');
$m->setOption(Memcached::OPT_TCP_NODELAY, true);
$m->addServer($host, (int)$port);

function same(string $what, mixed $wanted, mixed $got): void
{
    global $m;
    if ($wanted !== $got) {
        echo "$what: wanted ", var_export($wanted, true), ', got ', var_export($got, true), ' (', $m->getResultMessage(), ")\n";
        exit(1);
    }
}

same('flush', true, $m->flush());
$values = [
    'string' => 'text', 'empty' => '', 'int' => 42, 'float' => 1.5, 'true' => true, 'false' => false,
    'array' => ['a' => [1, 2], 'b' => null], 'object' => new ArrayObject([1]), 'long' => str_repeat('compress me ', 5000),
    'bytes' => random_bytes(20000),
];
foreach ($values as $name => $value) {
    same("set $name", true, $m->set("v.$name", $value, 60));
    $got = $m->get("v.$name");
    is_object($value) ? same("get $name", true, $got == $value) : same("get $name", $value, $got);
}
$keys = array_map(fn ($name) => "v.$name", array_keys($values));
same('getMulti', count($values), count($m->getMulti([...$keys, 'missing'])));
same('getMulti in order', [...$keys, 'missing'], array_keys($m->getMulti([...$keys, 'missing'], Memcached::GET_PRESERVE_ORDER)));
same('setMulti', true, $m->setMulti(['m1' => 1, 'm2' => [2]]));
same('getDelayed', true, $m->getDelayed(['m1', 'm2'], true));
same('fetchAll', 2, count($m->fetchAll()));

same('add', true, $m->add('lock', 1, 15));
same('add again', false, $m->add('lock', 1, 15));
same('add code', Memcached::RES_NOTSTORED, $m->getResultCode() === Memcached::RES_DATA_EXISTS ? Memcached::RES_NOTSTORED : $m->getResultCode());
same('replace', true, $m->replace('lock', '0', 1));
same('replace missing', false, $m->replace('nothing', '0'));

$m->setOption(Memcached::OPT_COMPRESSION, false);
same('set for append', true, $m->set('log', 'b'));
same('append', true, $m->append('log', 'c'));
same('prepend', true, $m->prepend('log', 'a'));
same('joined', 'abc', $m->get('log'));
same('append missing', false, $m->append('nothing', 'c'));
$m->setOption(Memcached::OPT_COMPRESSION, true);

same('set number', true, $m->set('n', 9));
same('increment', 10, $m->increment('n'));
same('decrement', 8, $m->decrement('n', 2));
same('decrement below zero', 0, $m->decrement('n', 20));
same('increment missing', false, $protocol === 'binary' ? $m->get('absent') : $m->increment('absent'));
if ($protocol === 'binary') {
    same('increment with initial', 5, $m->increment('fresh', 1, 5, 60));
    same('increment after initial', 6, $m->increment('fresh', 1, 5, 60));
    same('key with a space', true, $m->set('has space', 'x'));
    same('get key with a space', 'x', $m->get('has space'));
}

same('set for cas', true, $m->set('c', 'one'));
$seen = $m->get('c', null, Memcached::GET_EXTENDED);
same('cas', true, $m->cas($seen['cas'], 'c', 'two'));
same('cas with an old unique', false, $m->cas($seen['cas'], 'c', 'three'));
same('cas code', Memcached::RES_DATA_EXISTS, $m->getResultCode());
same('after cas', 'two', $m->get('c'));

same('touch', true, $m->touch('c', 100));
same('touch missing', false, $m->touch('nothing', 100));
same('absolute expiry', true, $m->set('abs', 1, time() + 100) && $m->get('abs') === 1);
same('past expiry', true, $m->set('past', 1, time() - 100) && $m->get('past') === false);
same('delete', true, $m->delete('c'));
same('delete again', false, $m->delete('c'));
same('deleteMulti', ['m1' => true, 'm2' => true], $m->deleteMulti(['m1', 'm2']));

same('longest key', true, $m->set(str_repeat('k', 250), 'v'));
same('too large', false, $m->set('log', random_bytes(2 << 20)));
same('too large replaces nothing old', false, $m->get('log'));
same('alive after too large', true, $m->set('log', 'short'));

$stats = $m->getStats()["$host:$port"];
same('stats', true, $stats['uptime'] > 0 && $stats['limit_maxbytes'] > 0 && $stats['curr_items'] > 0 && $stats['cmd_get'] > 0);
same('version', '1.6.18', implode('.', array_map('intval', explode('.', current($m->getVersion())))));
if ($protocol === 'ascii') {
    $all = $m->getAllKeys();
    same('getAllKeys', true, is_array($all) && !array_diff($keys, $all));
    $m->setOption(Memcached::OPT_NOREPLY, true);
    same('noreply set', true, $m->set('quiet', 1));
    $m->setOption(Memcached::OPT_NOREPLY, false);
    same('after noreply', 1, $m->get('quiet'));
}
same('quit', true, $m->quit());
echo "ok\n";
