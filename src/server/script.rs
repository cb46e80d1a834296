//! Which file a request means, as php-fpm's `init_request_info` and `security.limit_extensions` decide it.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::engine::CgiSettings;
use crate::request::{Script, Variables};

mod files;
mod search;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

/// What decides how variables become a file.
#[derive(Debug, Clone)]
pub(crate) struct ScriptSettings {
    /// `cgi.fix_pathinfo`: a path that names nothing is cut at its slashes until a file is left.
    pub(crate) fix_pathinfo: bool,
    /// `cgi.discard_path`: without `fix_pathinfo`, `PATH_TRANSLATED` does not win over `SCRIPT_FILENAME`.
    pub(crate) discard_path: bool,
    /// `security.limit_extensions`; empty means that every file may be run.
    pub(crate) limit_extensions: Vec<String>,
    /// `doc_root` of php.ini, empty when unset: what `DOCUMENT_ROOT` is when the web server sends none.
    pub(crate) doc_root: Vec<u8>,
    /// A `PATH_INFO` that was cut off Apache's `proxy:` URL is %-decoded (since PHP 8.3.18 and 8.4.5, php-src GH-17643).
    pub(crate) decode_path_info: bool,
    /// All of the path in such a URL is %-decoded: since PHP 8.5, unless `fastcgi.script_path_encoded` is on.
    pub(crate) decode_script_path: bool,
    /// For so long, a path that named something is taken to do so still, without a `stat`.
    ///
    /// php-fpm asks PHP's realpath cache, which says so for `realpath_cache_ttl`, two minutes. A script that has gone
    /// in the meantime is found out when it is opened, under php-fpm as here.
    pub(crate) trust_files_for: Duration,
}

impl From<CgiSettings> for ScriptSettings {
    fn from(cgi: CgiSettings) -> Self {
        Self {
            fix_pathinfo: cgi.fix_pathinfo,
            discard_path: cgi.discard_path,
            limit_extensions: [".php", ".phar"].map(String::from).to_vec(),
            doc_root: Vec::new(),
            decode_path_info: cfg!(php83) && !cgi.decode_script_path,
            decode_script_path: cgi.decode_script_path,
            // As opcache.revalidate_freq, by default.
            trust_files_for: Duration::from_secs(2),
        }
    }
}

/// Finds the file, and brings `SCRIPT_FILENAME`, `SCRIPT_NAME`, `PATH_INFO`, `PATH_TRANSLATED`, `DOCUMENT_ROOT` and
/// their `ORIG_` copies into the state in which a script sees them under php-fpm.
///
/// A relative path is relative to this process's working directory, so this runs between two requests.
pub(crate) fn resolve(variables: &mut Variables, settings: &ScriptSettings) -> Script {
    let found = match plain_script(variables, settings) {
        Some(path) => Some(path.to_vec()),
        None => search::find(variables, settings),
    };
    let Some(path) = found.filter(|path| is_acceptable(path)) else {
        return Script::NotFound;
    };
    if !settings.allows_extension_of(&path) {
        return Script::AccessDenied { path };
    }
    match absolute(path) {
        Some(path) => Script::File { path },
        None => Script::NotFound,
    }
}

/// What nearly every request is: `SCRIPT_FILENAME` names the file, and no variable has to change.
fn plain_script<'v>(variables: &'v Variables, settings: &ScriptSettings) -> Option<&'v [u8]> {
    let mut script = None;
    let mut has_document_root = !settings.fix_pathinfo || settings.doc_root.is_empty();
    for (name, value) in variables.iter() {
        match name {
            b"SCRIPT_FILENAME" => script = Some(value),
            b"DOCUMENT_ROOT" => has_document_root = true,
            // Each of these may mean that the variables are not what they should be.
            b"REDIRECT_URL" => return None,
            b"SERVER_SOFTWARE" if value.starts_with(search::IIS) => return None,
            b"PATH_TRANSLATED" if !settings.fix_pathinfo && !settings.discard_path => return None,
            _ => {}
        }
    }
    let script = script.filter(|_| has_document_root)?;
    let is_plain = !search::is_proxy_url(script)
        && (!settings.fix_pathinfo
            || (!script.ends_with(b"/") && files::exists(script, settings.trust_files_for)));
    is_plain.then_some(script)
}

/// Whether PHP may be given this path at all. php-fpm refuses `..` the same way; a NUL byte would end the name early,
/// which php-fpm lets happen.
fn is_acceptable(path: &[u8]) -> bool {
    let has_parent = memchr::memmem::find(path, b"..").is_some()
        && path.split(|&byte| byte == b'/').any(|p| p == b"..");
    !has_parent && path.len() < files::MAX_PATH && memchr::memchr(0, path).is_none()
}

impl ScriptSettings {
    fn allows_extension_of(&self, path: &[u8]) -> bool {
        // As php-fpm: a path that is nothing but an extension does not count as having it.
        let has = |extension: &String| {
            path.len() > extension.len() && path.ends_with(extension.as_bytes())
        };
        self.limit_extensions.is_empty() || self.limit_extensions.iter().any(has)
    }
}

/// The same file by a path that still names it when the working directory is another, and that no stream wrapper can
/// take for a URL.
fn absolute(path: Vec<u8>) -> Option<Vec<u8>> {
    match path.first() {
        None => None,
        Some(b'/') => Some(path),
        Some(_) => {
            let mut whole = env::current_dir().ok()?.as_os_str().as_bytes().to_vec();
            whole.push(b'/');
            whole.extend_from_slice(&path);
            Some(whole)
        }
    }
}
