<?php
header('Content-Type: text/plain');
echo 'PHP ', PHP_VERSION, ' on ', $_SERVER['SERVER_SOFTWARE'], ' and fe-php', "\n";
