//! What is asked for: scripts, bodies, and a MediaWiki.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::applications::installation::Directory;
use crate::applications::mediawiki;

/// A directory with all of it.
#[derive(Debug)]
pub(crate) struct Scripts {
    directory: TempDir,
    wiki: OnceCell<(Directory, PathBuf)>,
}

const SCRIPTS: [(&str, &str); 9] = [
    ("hello.php", "<?php echo 'hello';"),
    (
        "page.php",
        "<?php $k = str_repeat('x', 1024); for ($i = 0; $i < 50; $i++) { echo $k; }",
    ),
    (
        "server.php",
        "<?php echo count($_SERVER), ' ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['HTTP_USER_AGENT'];",
    ),
    ("form.php", "<?php echo count($_POST);"),
    // Not decoded: that takes longer than all else, and is the same for everybody.
    ("json.php", "<?php echo strlen(file_get_contents('php://input'));"),
    // Calls, arrays, strings and a hash function, about 20 ms.
    (
        "cpu.php",
        "<?php
function step(int $i, array &$seen): int { $seen[$i % 1000] = $i; return ($i * 31 + count($seen)) % 1000003; }
$seen = []; $x = 1; $s = '';
for ($i = 0; $i < 150000; $i++) { $x = step($x + $i, $seen); if ($i % 8 === 0) { $s = sha1($s . $x); } }
echo $s;",
    ),
    ("sleep.php", "<?php usleep(200000); echo 'slept';"),
    ("echo.php", "<?php echo file_get_contents('php://input');"),
    (
        "same.php",
        "<?php echo PHP_VERSION, PHP_ZTS ? ' ZTS' : ' NTS', ', ', \
         (opcache_get_status(false)['opcache_enabled'] ?? false) ? 'with' : 'without', ' OPcache, ', \
         implode(' ', get_loaded_extensions());",
    ),
];

/// Objects, a sort, patterns, JSON and a hash: what pages are made of. A fixed amount of work, in PARTS parts.
const MIXED: &str = r#"<?php
final class Entry
{
    public function __construct(public int $id, public string $name, public array $tags, public int $weight) {}
    public function link(): string { return "/entry/{$this->id}/" . strtolower($this->name); }
}
function part(int $seed): string
{
    $entries = [];
    for ($i = 0; $i < 12; $i++) {
        $seed = ($seed * 1103515245 + 12345) & 0x7fffffff;
        $entries[] = new Entry($i, "Entry-$seed", ['a' . $seed % 7, 'b' . $seed % 11], $seed % 1000);
    }
    usort($entries, fn (Entry $a, Entry $b): int => $a->weight <=> $b->weight ?: $a->id <=> $b->id);
    $text = '';
    foreach ($entries as $entry) {
        $text .= '<a href="' . htmlspecialchars($entry->link()) . '">' . implode(' & ', $entry->tags) . "</a>\n";
    }
    $text = preg_replace_callback('/entry-(\d+)/', fn (array $found): string => 'e' . dechex((int) $found[1]), $text);
    preg_match_all('/href="([^"]+)"/', $text, $links);
    $again = json_decode(json_encode(['entries' => $entries, 'links' => $links[1]]), true);
    return md5($text . count($again['links']) . $again['entries'][0]['weight']);
}
$sum = '';
for ($i = 1; $i <= PARTS; $i++) { $sum = part($i * 7919 + ord($sum[0] ?? 'x')); }
echo $sum, "\n", str_repeat("A line of the page that is the same each time.\n", 100);
"#;

/// The mixed pages by the milliseconds of CPU that they take, about, on a processor of 2024; and their parts.
const MIXED_PAGES: [(&str, u32); 4] = [
    ("mixed-0.25.php", 6),
    ("mixed-1.php", 40),
    ("mixed-2.4.php", 102),
    ("mixed-10.php", 420),
];

/// A small application; it writes a cache beside itself.
const SYMFONY: &str = include_str!("symfony/index.php");

impl Scripts {
    /// Writes all but the MediaWiki, which is made when it is asked for.
    pub(crate) fn write() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, source) in SCRIPTS {
            fs::write(directory.path().join(name), source).unwrap();
        }
        for (name, parts) in MIXED_PAGES {
            let source = MIXED.replace("PARTS", &parts.to_string());
            fs::write(directory.path().join(name), source).unwrap();
        }
        let symfony = directory.path().join("symfony");
        fs::create_dir(&symfony).unwrap();
        fs::write(symfony.join("index.php"), SYMFONY).unwrap();
        fs::write(directory.path().join("form.body"), form()).unwrap();
        fs::write(directory.path().join("json.body"), json()).unwrap();
        Self {
            directory,
            wiki: OnceCell::new(),
        }
    }

    /// The document root.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The file called `name`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.root().join(name).to_str().unwrap().to_owned()
    }

    /// MediaWiki's LocalSettings.php.
    pub(crate) fn wiki_settings(&self) -> &Path {
        let (_, settings) = self.wiki.get_or_init(|| {
            eprintln!("  installing MediaWiki");
            let directory = mediawiki::directory();
            let settings = mediawiki::set_up(&directory);
            (directory, settings)
        });
        settings
    }

    /// MediaWiki's script, and what `fe-php bench` needs for its front page.
    pub(crate) fn wiki(&self) -> (String, Vec<String>) {
        let variable = format!("MW_CONFIG_FILE={}", self.wiki_settings().display());
        // A page says how long it took, and so has no fixed length.
        let arguments = [
            "--query",
            "title=Main_Page",
            "--param",
            &variable,
            "--any-length",
        ];
        (
            format!("{}/index.php", mediawiki::CODE),
            arguments.map(str::to_owned).into(),
        )
    }
}

/// 100 KB in 200 fields.
fn form() -> String {
    let mut text = String::new();
    for number in 0..200 {
        let _ = write!(text, "&field{number:03}={}", "value".repeat(100));
    }
    text.split_off(1)
}

/// 100 KB in 500 objects.
fn json() -> String {
    let mut text = String::new();
    for number in 0..500 {
        let _ = write!(
            text,
            ",{{\"id\":{number},\"name\":\"entry {number}\",\"tags\":[\"a\",\"b\",\"c\"],\"text\":\"{}\"}}",
            "lorem ipsum ".repeat(12)
        );
    }
    format!("[{}]", text.split_off(1))
}
