<?php
// Everything a script can know about its request, as JSON; texts that are not UTF-8 in hexadecimal.
function plain(mixed $value): mixed
{
    if (is_array($value)) {
        $copy = [];
        foreach ($value as $key => $item) {
            $copy[plain($key)] = plain($item);
        }
        return $copy;
    }
    return is_string($value) && !preg_match('//u', $value) ? 'hex:' . bin2hex($value) : $value;
}

// Without what differs between two servers by necessity: the time, and how the test sets them up.
function comparable(array $variables): array
{
    unset($variables['PHP_INI_SCAN_DIR']);
    foreach (['REQUEST_TIME', 'REQUEST_TIME_FLOAT'] as $name) {
        if (is_numeric($variables[$name] ?? null)) {
            $variables[$name] = gettype($variables[$name]) . (abs($variables[$name] - time()) < 60 ? ', now' : ', wrong');
        }
    }
    return $variables;
}

$server = comparable($_SERVER);
$environment = comparable(getenv());
$input = file_get_contents('php://input');
header('Content-Type: application/json');
echo json_encode(plain([
    'server' => $server,
    'server_order' => implode(' ', array_keys(array_diff_key($server, $environment))),
    'get' => (object)$_GET,
    'post' => (object)$_POST,
    'cookie' => (object)$_COOKIE,
    'request' => (object)$_REQUEST,
    'files' => (object)$_FILES,
    'env' => (object)comparable($_ENV),
    'getenv' => (object)$environment,
    'order' => array_map('array_keys', [$_GET, $_POST, $_COOKIE]),
    'input' => strlen($input) > 2000 ? [strlen($input), md5($input)] : $input,
    'headers' => function_exists('getallheaders') ? (object)getallheaders() : null,
    'argv' => [$argc ?? null, $argv ?? null, $GLOBALS['argv'] ?? null],
    'method' => getenv('REQUEST_METHOD'),
    'local' => getenv('REQUEST_METHOD', true),
]), JSON_UNESCAPED_SLASHES | JSON_PARTIAL_OUTPUT_ON_ERROR), "\n";
