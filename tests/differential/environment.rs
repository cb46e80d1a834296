//! What a script can find out about the program that runs it.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    for (name, source) in JSON {
        suite.script(name, &format!("<?php header('Content-Type: application/json'); echo json_encode((object)({source}), JSON_UNESCAPED_SLASHES | JSON_PARTIAL_OUTPUT_ON_ERROR);"));
    }
    for (name, source) in CASES {
        suite.script(name, &format!("<?php {source}"));
    }
    for script in ["/dump.php", "/dump.php?a=1&b[]=2", "/dump.php?a+b+c"] {
        let request = suite.get(script).header("Cookie", "c=3").form("d=4");
        suite.case(&format!("dump of {script}"), request);
    }
    suite.script("server first touched late", "<?php function f() { return $_SERVER['REQUEST_METHOD'] . count($_GET); } $n = '_SERVER'; echo isset($GLOBALS[$n]) ? 'there' : 'not there', f(), isset($$n) ? 'there' : 'not there';");
    suite.script("variable variables", "<?php $n = '_ENV'; var_dump(isset($$n), isset($GLOBALS['_REQUEST']), isset($GLOBALS['_GET']), array_keys($GLOBALS));");
}

/// Sources of arrays that are compared key by key.
const JSON: &[(&str, &str)] = &[
    (
        "settings",
        "array_map(fn ($s) => [$s['global_value'], $s['local_value'], $s['access']], array_diff_key(ini_get_all(), ['session.save_path' => 1]))",
    ),
    (
        "settings' order",
        "['names' => implode(' ', array_keys(ini_get_all()))]",
    ),
    (
        "extensions",
        "array_map(fn ($e) => phpversion($e), array_combine(get_loaded_extensions(), get_loaded_extensions()))",
    ),
    (
        "Zend extensions",
        "array_fill_keys(get_loaded_extensions(true), true)",
    ),
    (
        "functions",
        "array_fill_keys(get_defined_functions()['internal'], true)",
    ),
    (
        "classes",
        "array_fill_keys(array_merge(get_declared_classes(), get_declared_interfaces()), true)",
    ),
    (
        "constants",
        "array_map(fn ($all) => array_map(fn ($c) => is_resource($c) ? 'resource' : $c, array_diff_key($all, [\"\\0apc_register_serializer-0\" => 1])), array_diff_key(get_defined_constants(true), ['user' => 1]))",
    ),
    (
        "streams",
        "['wrappers' => stream_get_wrappers(), 'transports' => stream_get_transports(), 'filters' => stream_get_filters()]",
    ),
    ("OPcache", "opcache_get_configuration()['directives']"),
    (
        "OPcache status",
        "array_intersect_key(opcache_get_status(false), ['opcache_enabled' => 1, 'cache_full' => 1, 'restart_pending' => 1, 'file_cache' => 1]) + ['jit' => opcache_get_status(false)['jit']['enabled'] ?? null]",
    ),
    ("resource limits", "array_map('strval', posix_getrlimit())"),
    (
        "ids",
        "['uid' => posix_getuid(), 'euid' => posix_geteuid(), 'gid' => posix_getgid(), 'umask' => umask(), 'groups' => posix_getgroups(), 'user' => get_current_user()]",
    ),
    (
        "ini files",
        "['path' => basename(dirname(php_ini_loaded_file())), 'files' => array_map('basename', explode(',', php_ini_scanned_files())), 'configured' => basename(get_cfg_var('cfg_file_path'))]",
    ),
    (
        "environment",
        "array_diff_key(getenv(), ['PHP_INI_SCAN_DIR' => 1])",
    ),
    (
        "signals",
        "array_map(fn ($n) => preg_match(\"/Sig$n:\\s*(\\S+)/\", file_get_contents('/proc/thread-self/status'), $m) ? dechex(hexdec(substr($m[1], -8)) & 0x7fffffff) : null, ['ignored' => 'Ign', 'blocked' => 'Blk'])",
    ),
    (
        "descriptors",
        "['first' => count(array_filter(scandir('/proc/self/fd'), fn ($n) => is_numeric($n) && $n < 3)), 'input' => @readlink('/proc/self/fd/0')]",
    ),
    (
        "dynamic loading",
        "['dl' => function_exists('dl') ? 1 : 0, 'enabled' => ini_get('enable_dl')]",
    ),
    (
        "functions of the SAPI",
        "array_map(fn ($f) => function_exists($f), array_combine($f = ['fastcgi_finish_request', 'fpm_get_status', 'getallheaders', 'apache_request_headers', 'apache_response_headers', 'apache_getenv', 'apache_setenv', 'apache_lookup_uri', 'virtual', 'cli_set_process_title', 'cli_get_process_title', 'headers_send', 'pcntl_fork', 'readline', 'opcache_get_status'], $f))",
    ),
];

const CASES: &[(&str, &str)] = &[
    (
        "SAPI name",
        "echo php_sapi_name(), PHP_SAPI, PHP_VERSION, PHP_OS, PHP_ZTS, PHP_DEBUG, PHP_INT_SIZE;",
    ),
    (
        "phpinfo general",
        "ob_start(); phpinfo(INFO_GENERAL); $text = ob_get_clean(); preg_match_all('~<tr><td class=\"e\">(.*?) </td><td class=\"v\">(.*?)</td></tr>~s', $text, $m); foreach (array_combine($m[1], $m[2]) as $k => $v) { if (in_array($k, ['Server API', 'Virtual Directory Support', 'Thread Safety', 'Debug Build', 'PHP API', 'Zend Extension Build', 'Registered PHP Streams', 'IPv6 Support', 'Zend Signal Handling', 'Zend Memory Manager', 'Zend Multibyte Support', 'Thread API', 'Zend Max Execution Timers'])) echo \"$k = $v\\n\"; } echo preg_match('~<title>(.*?)</title>~', $text, $m), $m[1];",
    ),
    (
        "phpinfo modules",
        "ob_start(); phpinfo(INFO_MODULES); preg_match_all('~<h2>(.*?)</h2>~', ob_get_clean(), $m); echo strip_tags(implode(PHP_EOL, $m[1]));",
    ),
    (
        "phpinfo module cgi-fcgi",
        "ob_start(); phpinfo(INFO_MODULES); preg_match('~name=\"module_cgi-fcgi\".*?</table>~s', ob_get_clean(), $m); echo strip_tags($m[0] ?? 'none');",
    ),
    (
        "phpinfo variables",
        "ob_start(); phpinfo(INFO_VARIABLES); echo implode(preg_grep('~REQUEST_TIME|PHP_INI_SCAN_DIR|USER\\'|HOME\\'|^$~', explode(\"\\n\", ob_get_clean()), PREG_GREP_INVERT));",
    ),
    (
        "phpinfo environment",
        "ob_start(); phpinfo(INFO_ENVIRONMENT); $lines = preg_grep('~PHP_INI_SCAN_DIR~', explode(\"\\n\", ob_get_clean()), PREG_GREP_INVERT); sort($lines); echo implode($lines);",
    ),
    ("phpinfo license", "phpinfo(INFO_LICENSE);"),
    (
        "uname",
        "echo php_uname(), sys_get_temp_dir(), gethostname();",
    ),
    (
        "locale",
        "var_dump(setlocale(LC_ALL, 0), localeconv()['decimal_point'], setlocale(LC_ALL, 'C.UTF-8'), strtoupper('ä'), setlocale(LC_ALL, 'de_DE.UTF-8', 'C'));",
    ),
    (
        "locale works",
        "var_dump(setlocale(LC_ALL, 0), localeconv()['decimal_point'], setlocale(LC_CTYPE, 'C.UTF-8'), nl_langinfo(CODESET));",
    ),
    (
        "time zone",
        "echo date_default_timezone_get(), ini_get('date.timezone'), date('T e', 0);",
    ),
    (
        "putenv",
        "putenv('FE_TEST=1'); echo getenv('FE_TEST'), `echo \\$FE_TEST`; putenv('FE_TEST'); var_dump(getenv('FE_TEST'));",
    ),
    (
        "environment of a program",
        "echo preg_replace('/^(PHP_INI_SCAN_DIR|_|PWD|SHLVL|OLDPWD)=.*\\n/m', '', `env | sort`);",
    ),
    (
        "programs",
        "echo `echo out; echo err >&2; pwd; id -u`; exec('exit 3', $o, $c); echo $c; passthru('printf %s x'); var_dump(proc_close(proc_open('cat', [['pipe', 'r'], ['pipe', 'w']], $pipes)));",
    ),
    (
        "limits",
        "echo ini_get('memory_limit'), ini_get('max_execution_time'), ini_get('max_input_time'), memory_get_usage() < 2000000 ? 'small' : 'large';",
    ),
    (
        "getopt",
        "var_dump(getopt('a:'), $_SERVER['argc'] ?? null, $argc ?? null);",
    ),
    (
        "stream select",
        "$s = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0); fwrite($s[0], 'x'); $r = [$s[1]]; $w = $e = null; var_dump(stream_select($r, $w, $e, 1)); echo (int)$s[0] < 100 ? 'low' : 'high';",
    ),
    (
        "sockets",
        "$s = stream_socket_server('tcp://127.0.0.1:0'); $c = stream_socket_client('tcp://' . stream_socket_get_name($s, false)); $a = stream_socket_accept($s); fwrite($c, \"hi\\n\"); echo fgets($a);",
    ),
    (
        "temporary files",
        "$f = tmpfile(); fwrite($f, 'x'); rewind($f); echo fread($f, 1); $n = tempnam(sys_get_temp_dir(), 'x'); echo decoct(fileperms($n) & 0777); unlink($n); mkdir($n); echo decoct(fileperms($n) & 0777); rmdir($n);",
    ),
    (
        "process id",
        "var_dump(getmypid() === posix_getpid(), getmypid() > 1);",
    ),
    (
        "random",
        "var_dump(strlen(random_bytes(16)), mt_srand(5), mt_rand(), rand(1, 1));",
    ),
    (
        "APCu",
        "if (function_exists('apcu_store')) { var_dump(apcu_store('k', [1]), apcu_fetch('k'), apcu_enabled()); }",
    ),
    (
        "compiled in OPcache",
        "var_dump(opcache_is_script_cached(__FILE__), opcache_compile_file(__DIR__ . '/dump.php'), opcache_invalidate(__DIR__ . '/dump.php', true));",
    ),
    (
        "sleep",
        "$t = microtime(true); usleep(20000); var_dump(microtime(true) - $t > 0.015, sleep(0), time_nanosleep(0, 1000));",
    ),
    (
        "resource usage",
        "var_dump(isset(getrusage()['ru_utime.tv_sec']), getmyuid() === fileowner(__FILE__));",
    ),
    (
        "configuration variables",
        "var_dump(get_cfg_var('session.save_path') === ini_get('session.save_path'), get_cfg_var('nonsense'));",
    ),
    (
        "include path",
        "echo get_include_path(), PATH_SEPARATOR, PHP_EXTENSION_DIR, PHP_BINARY === '' ? 'no binary' : 'binary';",
    ),
    (
        "fpm status",
        "if (function_exists('fpm_get_status')) { $s = fpm_get_status(); echo implode(' ', array_keys($s)), ' ', implode(' ', array_keys($s['procs'][0] ?? [])); }",
    ),
    (
        "disabled by the SAPI",
        "echo ini_get('disable_functions'), ini_get('disable_classes');",
    ),
    (
        "headers functions",
        "print_r(apache_request_headers()); if (function_exists('apache_response_headers')) { header('X-A: 1'); print_r(apache_response_headers()); }",
    ),
];
