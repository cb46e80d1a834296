<?php
// The container's health check: asks the server, over FastCGI, to run this very file, and expects "ok" from it.
//
//   php -n health.php [ADDRESS]     (tcp://127.0.0.1:9000 by default)

if (PHP_SAPI !== 'cli') {
    exit('ok');
}

function record(int $type, string $content): string
{
    return pack('CCnnCx', 1, $type, 1, strlen($content), 0) . $content;
}

function pair(string $name, string $value): string
{
    return pack('NN', strlen($name) | 0x80000000, strlen($value) | 0x80000000) . $name . $value;
}

$address = $argv[1] ?? 'tcp://127.0.0.1:9000';
$server = @stream_socket_client($address, $code, $message, 5);
if (!$server) {
    fwrite(STDERR, "$address: $message\n");
    exit(1);
}
stream_set_timeout($server, 5);
$params = pair('SCRIPT_FILENAME', __FILE__) . pair('SCRIPT_NAME', '/health.php') . pair('REQUEST_METHOD', 'GET');
fwrite($server, record(1, pack('nCx5', 1, 0)) . record(4, $params) . record(4, '') . record(5, ''));

$output = '';
while (strlen($header = (string) fread($server, 8)) === 8) {
    ['type' => $type, 'length' => $length, 'padding' => $padding] = unpack('x/Ctype/x2/nlength/Cpadding/x', $header);
    $content = $length + $padding > 0 ? (string) stream_get_contents($server, $length + $padding) : '';
    if ($type === 6) {
        $output .= substr($content, 0, $length);
    } elseif ($type === 3) {
        break;
    }
}
if (!str_ends_with($output, "\r\n\r\nok")) {
    fwrite(STDERR, "$address: " . ($output === '' ? 'no answer' : strtok($output, "\r\n")) . "\n");
    exit(1);
}
