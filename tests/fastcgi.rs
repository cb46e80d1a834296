//! The FastCGI protocol on the wire: every record, every split, every way a peer can behave.

mod abort;
mod bodies;
mod clients;
mod idle;
mod limits;
mod management;
mod multiplexing;
mod records;

use std::path::{Path, PathBuf};

use crate::support::server::Server;
use crate::support::wait_until;

/// A script that waits until a file is there; the test says when it goes on.
const WAIT: &str = "<?php
touch($_GET['file'] . '.started');
$end = microtime(true) + 20;
while (!file_exists($_GET['file'])) {
    if (microtime(true) > $end) {
        exit('waited in vain');
    }
    usleep(1000);
    clearstatcache();
}
echo 'waited';";

/// Tells a script that waits for it to go on.
pub(crate) fn create(path: &Path) {
    std::fs::write(path, "").unwrap();
}

/// Waits until a script waits for this file.
pub(crate) fn expect_waiting(path: &Path) {
    let started = path.with_extension("started");
    wait_until("the script runs", || started.exists());
}

/// A path that a script can wait for, and the URI of that script.
pub(crate) fn wait(server: &Server, name: &str) -> (PathBuf, String) {
    server.php("wait.php", WAIT);
    let file = server.directory().join(name);
    let uri = format!("/wait.php?file={}", file.display());
    (file, uri)
}
