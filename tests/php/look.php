<?php
// What an earlier request could have left behind, as JSON; what the server was given by this request is left out.
$first_random = mt_rand();
mt_srand(5);
$seeded = $first_random === mt_rand();
$error_handler = set_error_handler(null);
$exception_handler = set_exception_handler(null);
$files = [];
foreach (scandir('/proc/self/fd') as $descriptor) {
    $target = @readlink("/proc/self/fd/$descriptor");
    if ($target !== false && preg_match('~/left|/sess_|/php[A-Za-z0-9]{6}$~', $target)) {
        $files[] = $target;
    }
}
$lock = fopen(dirname($_SERVER['DOCUMENT_ROOT']) . '/left.lock', 'c');
$locked = !flock($lock, LOCK_EX | LOCK_NB);
$headers = headers_list();
$server = $_SERVER;
unset($server['REQUEST_TIME'], $server['REQUEST_TIME_FLOAT']);
$settings = ini_get_all(null, false);
header('Content-Type: application/json');
echo json_encode([
    'server' => $server,
    'input' => [$_GET, $_POST, $_COOKIE, $_FILES, $_REQUEST, file_get_contents('php://input'), getallheaders()],
    'globals' => array_diff(array_keys($GLOBALS), ['target', 'descriptor']),
    'headers' => $headers,
    'status' => http_response_code(),
    'session' => [session_id(), session_name(), session_status(), isset($_SESSION), session_cache_limiter(),
        session_save_path(), session_module_name(), session_get_cookie_params()],
    'directory' => getcwd(),
    'relative' => file_exists('look.php'),
    'locale' => [setlocale(LC_ALL, 0), localeconv()],
    'environment' => getenv(),
    'environment of a program' => preg_replace('/^(_|PWD|SHLVL|OLDPWD)=.*\n/m', '', `env | sort`),
    'settings' => $settings,
    'umask' => umask(),
    'open files' => $files,
    'locked' => $locked,
    'time zone' => date_default_timezone_get(),
    'handlers' => [$error_handler, $exception_handler, spl_autoload_functions(), error_get_last()],
    'streams' => [stream_get_wrappers(), stream_get_filters(), stream_context_get_options(stream_context_get_default())],
    'include path' => get_include_path(),
    'included' => count(get_included_files()),
    'own' => [get_defined_functions()['user'], function_exists('strrev'), array_keys(get_defined_constants(true)['user'] ?? []),
        class_exists('Left', false), count(get_declared_classes())],
    'output' => [ob_get_level(), ob_list_handlers(), array_column(ob_get_status(true), 'name')],
    'random' => $seeded,
    'text' => [mb_internal_encoding(), mb_substitute_character(), mb_language(), mb_regex_encoding_or_none()],
    'xml' => [libxml_use_internal_errors(), count(libxml_get_errors())],
    'connection' => [connection_status(), ignore_user_abort(), gc_enabled(), error_reporting()],
    'memory' => memory_get_usage() < 4 << 20,
    'times' => (int)ini_get('max_execution_time'),
    'uploads' => count(glob(sys_get_temp_dir() . '/php??????')),
]), "\n";

function mb_regex_encoding_or_none(): string
{
    return function_exists('mb_regex_encoding') ? mb_regex_encoding() : 'none';
}
