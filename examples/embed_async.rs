//! PHP in an async program: `cargo run --example embed_async`. A body is sent piece by piece, and the answer streams.

use std::error::Error;
use std::fs;

use fe_php::{Php, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("upper.php");
    fs::write(
        &script,
        "<?php
        $body = fopen('php://input', 'r');
        while (($line = fgets($body)) !== false) {
            echo strtoupper($line);
            flush();
        }",
    )?;
    let php = Php::builder().ini("output_buffering", "0").start()?;

    let (request, body) = Request::new(&script)
        .method("POST")
        .header("Content-Type", "text/plain")
        .body_channel();
    let sender = tokio::spawn(async move {
        for line in ["one\n", "two\n", "three\n"] {
            if !body.send(line).await {
                break;
            }
        }
    });
    let mut response = php.stream_async(request).await?;
    println!("status {}", response.head().status());
    while let Some(chunk) = response.chunk().await? {
        print!("{}", String::from_utf8_lossy(&chunk));
    }
    sender.await?;
    Ok(())
}
