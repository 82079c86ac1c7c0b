<?php
// A busy PHP worker: creates, appends, reads back, renames over, removes, lists, counts under a lock, and works through files that
// are open all the time. No call may fail, and everything read must be what was written.
//
//     php -n worker.php FOLDER SHARE NUMBER SECONDS
//
// FOLDER lies on the mount and is used by several workers; SHARE does not, and gets the report. It ends early once there is SHARE/stop.
error_reporting(E_ALL);
set_error_handler(function (int $level, string $message): never {
    throw new ErrorException($message);
});
[, $folder, $share, $number, $seconds] = $argv;
const STALL = 0.1;

final class Clock
{
    public array $longest = [];
    public array $stalls = [];
    public int $steps = 0;

    public function time(string $name, callable $step): mixed
    {
        $started = hrtime(true);
        $result = $step();
        $taken = (hrtime(true) - $started) / 1e9;
        $this->steps++;
        $this->longest[$name] = max($this->longest[$name] ?? 0, $taken);
        if ($taken > STALL) {
            $this->stalls[] = round($taken, 3);
        }
        return $result;
    }
}

function must(bool $holds, string $claim): void
{
    if (!$holds) {
        throw new LogicException($claim);
    }
}

function content(int $number): string
{
    $seed = hash('sha256', "content $number", true);
    return substr(str_repeat($seed, 1 + intdiv($number % 97 * 1024, 32)), 0, $number % 97 * 1000 + 1);
}

function put($file, string $data): void
{
    must(fwrite($file, $data) === strlen($data), 'short write');
}

/** Files that are open from the beginning to the end. */
final class Held
{
    private const LENGTH = 200_000;
    private $log, $random, $unlinked, $reader, $lock;
    private string $model;
    private int $lines = 0;

    public function __construct(private string $folder)
    {
        $this->log = fopen("$folder/log", 'a');
        $this->random = fopen("$folder/random", 'x+');
        $this->model = str_repeat("\0", self::LENGTH);
        must(ftruncate($this->random, self::LENGTH), 'ftruncate');
        file_put_contents("$folder/unlinked", content(96));
        $this->unlinked = fopen("$folder/unlinked", 'r+');
        unlink("$folder/unlinked");
        file_put_contents("$folder/read", content(95));
        $this->reader = fopen("$folder/read", 'r');
        $this->lock = fopen("$folder/lock", 'x');
        must(flock($this->lock, LOCK_EX), 'flock');
    }

    public function append(): void
    {
        put($this->log, sprintf("line %06d\n", $this->lines++));
    }

    public function write(int $turn): void
    {
        $at = $turn * 7919 % (self::LENGTH - 9000);
        $data = str_repeat(chr(65 + $turn % 26), 1 + $turn * 31 % 8192);
        fseek($this->random, $at);
        put($this->random, $data);
        $this->model = substr_replace($this->model, $data, $at, strlen($data));
    }

    public function readBack(int $turn): void
    {
        $at = $turn * 104729 % (self::LENGTH - 20000);
        fseek($this->random, $at);
        must(stream_get_contents($this->random, 20000) === substr($this->model, $at, 20000), "wrong bytes in the open file at $at");
        rewind($this->reader);
        must(stream_get_contents($this->reader) === content(95), 'wrong bytes in the file that is read');
        rewind($this->unlinked);
        must(stream_get_contents($this->unlinked) === content(96), 'wrong bytes in the unlinked file');
    }

    /** Another descriptor of the same file is another holder. */
    public function isLocked(): void
    {
        $other = fopen("$this->folder/lock", 'r');
        must(!flock($other, LOCK_EX | LOCK_NB), 'a lock is lost');
        fclose($other);
    }

    public function finish(): void
    {
        must(fflush($this->random) && fsync($this->random), 'fsync');
        array_map('fclose', [$this->log, $this->random, $this->unlinked, $this->reader, $this->lock]);
        must(file_get_contents("$this->folder/random") === $this->model, 'wrong bytes in the file that was open');
        $lines = implode('', array_map(fn($line) => sprintf("line %06d\n", $line), $this->lines > 0 ? range(0, $this->lines - 1) : []));
        must(file_get_contents("$this->folder/log") === $lines, 'wrong lines in the log');
    }
}

/** Short-lived files, of which some stay. */
final class Turns
{
    public array $kept = [];

    public function __construct(private string $folder, private string $shared)
    {
    }

    public function create(int $turn): void
    {
        $file = fopen("$this->folder/$turn.new", 'x');
        foreach (str_split(content($turn), 8192) as $block) {
            put($file, $block);
        }
        fclose($file);
        must(md5_file("$this->folder/$turn.new") === md5(content($turn)), "wrong bytes in $turn.new");
    }

    public function append(int $turn): void
    {
        $name = "$this->folder/$turn.new";
        must(file_put_contents($name, 'more', FILE_APPEND | LOCK_EX) === 4, 'append');
        clearstatcache();
        must(filesize($name) === strlen(content($turn)) + 4, "wrong length of $turn.new");
    }

    public function rename(int $turn): void
    {
        $name = $this->folder . '/' . $turn % 50;
        $old = is_file($name) ? fopen($name, 'r') : null;
        rename("$this->folder/$turn.new", $name);
        if ($old !== null) {
            must(stream_get_contents($old) === content($this->kept[$turn % 50]) . 'more', 'wrong bytes in what was replaced');
            fclose($old);
        }
        $this->kept[$turn % 50] = $turn;
    }

    public function remove(int $turn): void
    {
        if ($turn % 5 === 4) {
            unlink($this->folder . '/' . ($turn - 2) % 50);
            unset($this->kept[($turn - 2) % 50]);
        }
        $name = "$this->folder/folder$turn";
        mkdir($name);
        rmdir($name);
        must(!file_exists($name), 'a removed folder is there');
    }

    public function list(): void
    {
        $names = preg_grep('/^[0-9]+$/', scandir($this->folder));
        sort($names, SORT_NUMERIC);
        $wanted = array_keys($this->kept);
        sort($wanted);
        must($names == $wanted, 'wrong listing: ' . json_encode([array_values(array_diff($names, $wanted)), array_values(array_diff($wanted, $names))]));
    }

    public function check(): void
    {
        foreach ($this->kept as $name => $turn) {
            must(file_get_contents("$this->folder/$name") === content($turn) . 'more', "wrong bytes in $name");
        }
    }

    public function count(): void
    {
        $file = fopen("$this->shared/counter", 'c+');
        must(flock($file, LOCK_EX), 'flock');
        $value = (int) stream_get_contents($file);
        rewind($file);
        put($file, (string) ($value + 1));
        must(flock($file, LOCK_UN), 'unlock');
        fclose($file);
    }
}

function progress(string $share, string $number, int $turn): void
{
    file_put_contents("$share/progress$number", (string) $turn);
}

mkdir("$folder/$number");
$clock = new Clock();
$held = new Held("$folder/$number");
$turns = new Turns("$folder/$number", $folder);
$errors = [];
$counted = 0;
$end = microtime(true) + $seconds;
for ($turn = 0; microtime(true) < $end && !file_exists("$share/stop"); $turn++) {
    clearstatcache();
    try {
        $clock->time('create', fn() => $turns->create($turn));
        $clock->time('append', fn() => $turns->append($turn));
        $clock->time('rename', fn() => $turns->rename($turn));
        $clock->time('remove', fn() => $turns->remove($turn));
        $clock->time('held append', fn() => $held->append());
        $clock->time('held write', fn() => $held->write($turn));
        $clock->time('held read', fn() => $held->readBack($turn));
        $clock->time('locked', fn() => $held->isLocked());
        $clock->time('count', fn() => $turns->count());
        $counted++;
        if ($turn % 10 === 0) {
            $clock->time('list', fn() => $turns->list());
            $clock->time('check', fn() => $turns->check());
        }
    } catch (Throwable $error) {
        $errors[] = "turn $turn, line {$error->getLine()} < " . ($error->getTrace()[0]['line'] ?? '?') . ": {$error->getMessage()}";
        // What it left half done would be found as errors, too.
        break;
    }
    progress($share, $number, $turn);
}
try {
    $turns->check();
    $held->finish();
    if (!$errors) {
        $turns->list();
    }
} catch (Throwable $error) {
    $errors[] = "at the end, line {$error->getLine()}: {$error->getMessage()}";
}
$report = ['turns' => $turn, 'steps' => $clock->steps, 'counted' => $counted, 'errors' => $errors, 'kept' => (object) $turns->kept];
file_put_contents("$share/report$number", json_encode($report + ['stalls' => $clock->stalls, 'longest' => $clock->longest]));
exit($errors ? 1 : 0);
