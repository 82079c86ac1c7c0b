<?php
// Takes a file and sends the browser back to the page.

require_once __DIR__ . '/bitrix/modules/demo/files.php';

Demo\dbconn();
session_start();
try {
    if (($_SERVER['REQUEST_METHOD'] ?? '') !== 'POST') {
        throw new RuntimeException('Choose a file first.');
    }
    // A body beyond post_max_size leaves nothing of itself.
    if (!isset($_POST['token'])) {
        throw new RuntimeException('The file is too large.');
    }
    if (!hash_equals($_SESSION['token'] ?? '', (string) $_POST['token']) || $_POST['token'] === '') {
        throw new RuntimeException('The page was too old; please try again.');
    }
    $_SESSION['notice'] = ['good', 'Received ' . Demo\store_upload($_FILES['file'] ?? ['error' => UPLOAD_ERR_NO_FILE])];
} catch (Throwable $error) {
    $_SESSION['notice'] = ['bad', $error->getMessage()];
}
session_write_close();
if (($_SERVER['HTTP_X_REQUESTED_WITH'] ?? '') === 'XMLHttpRequest') {
    http_response_code(204);
} else {
    header('Location: /#files', true, 303);
}
