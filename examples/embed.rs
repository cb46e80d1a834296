//! PHP in a plain Rust program: `cargo run --example embed [SCRIPT [QUERY]]`.

use std::error::Error;
use std::io::{Write, stdout};
use std::{env, fs};

use fe_php::{Php, PhpError, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let script = match env::args().nth(1) {
        Some(script) => script.into(),
        None => {
            let script = directory.path().join("hello.php");
            fs::write(
                &script,
                "<?php header('X-From: PHP'); echo 'Hello from PHP ', PHP_VERSION, \"\\n\";",
            )?;
            script
        }
    };
    let php = Php::builder()
        .workers(2)
        .ini("memory_limit", "128M")
        .start()?;

    // Several threads may call at once.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let request = Request::new(&script).query(env::args().nth(2).unwrap_or_default());
                match php.execute(request) {
                    Ok(response) => {
                        eprintln!("status {}", response.status());
                        drop(stdout().write_all(response.body()));
                    }
                    Err(PhpError::Fatal { errors, response }) => {
                        eprintln!(
                            "the script failed with status {}: {errors}",
                            response.status()
                        );
                    }
                    Err(error) => eprintln!("{error}"),
                }
            });
        }
    });
    Ok(())
}
