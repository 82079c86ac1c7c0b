<?php
// Files that visitors have sent. Anybody may send one, so they are few, and none can run.

namespace Demo;

use RuntimeException;

require_once __DIR__ . '/portal.php';

/** The oldest file goes when one more comes. */
const MOST_FILES = 20;
/** Shown or offered as they are; everything else gets ".bin". */
const HARMLESS = ['txt', 'pdf', 'png', 'jpg', 'jpeg', 'gif', 'webp', 'zip', 'gz', 'docx', 'xlsx', 'mp4', 'bin'];

/** Name => [size, seconds since 1970], newest first. */
function uploaded_files(): array
{
    $files = [];
    foreach (glob(upload_folder() . 'u-*') as $path) {
        $files[basename($path)] = [filesize($path), filemtime($path)];
    }
    uasort($files, fn ($one, $other) => $other[1] <=> $one[1]);
    return $files;
}

/** Takes a file of $_FILES. Returns the name that it got. */
function store_upload(array $file): string
{
    if ($file['error'] !== UPLOAD_ERR_OK) {
        throw new RuntimeException(match ($file['error']) {
            UPLOAD_ERR_INI_SIZE, UPLOAD_ERR_FORM_SIZE => 'The file is too large.',
            UPLOAD_ERR_NO_FILE => 'Choose a file first.',
            UPLOAD_ERR_PARTIAL => 'The file did not arrive whole.',
            default => 'The file could not be received (error ' . $file['error'] . ').',
        });
    }
    $name = safe_name($file['name']);
    if (!move_uploaded_file($file['tmp_name'], upload_folder() . $name)) {
        throw new RuntimeException('The file could not be moved to its place.');
    }
    chmod(upload_folder() . $name, BX_FILE_PERMISSIONS);
    foreach (array_slice(array_keys(uploaded_files()), MOST_FILES) as $old) {
        @unlink(upload_folder() . $old);
    }
    return $name;
}

function safe_name(string $name): string
{
    $name = trim(preg_replace('/[^A-Za-z0-9._-]+/', '-', basename($name)), '.-');
    // Some servers run a.php.txt as well.
    $stem = str_replace('.', '-', pathinfo($name, PATHINFO_FILENAME));
    $extension = strtolower(pathinfo($name, PATHINFO_EXTENSION));
    if (!in_array($extension, HARMLESS, true)) {
        $stem = trim("$stem-$extension", '-');
        $extension = 'bin';
    }
    return 'u-' . bin2hex(random_bytes(4)) . '-' . substr($stem === '' ? 'file' : $stem, 0, 60) . '.' . $extension;
}
