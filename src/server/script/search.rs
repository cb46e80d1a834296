//! The search for a script whose path is not simply `SCRIPT_FILENAME`: path info, Apache's URLs, IIS.
//!
//! Values are C strings to php-fpm, so each ends at its first NUL byte; only the script's own path keeps it, to be
//! refused.

use memchr::memrchr;

use super::{ScriptSettings, files};
use crate::request::Variables;

/// How `SERVER_SOFTWARE` begins under IIS.
pub(super) const IIS: &[u8] = b"Microsoft-IIS";

/// Whether `script` is a `SCRIPT_FILENAME` of Apache's mod_proxy_fcgi (`ProxyPass`, a balancer, `SetHandler`) that is
/// still the URL it proxies to.
pub(super) fn is_proxy_url(script: &[u8]) -> bool {
    proxy_prefix(script).is_some()
}

/// Finds the script and sets right the variables that speak of it; `None` when there is none.
pub(super) fn find(variables: &mut Variables, settings: &ScriptSettings) -> Option<Vec<u8>> {
    let mut search = Search::new(variables, settings);
    if search.script_filename.is_none() && search.path_translated.is_none() {
        return None;
    }
    search.repair_path_info_of_iis();
    search.strip_proxy_url();
    if settings.fix_pathinfo {
        search.default_document_root();
        let (script, redirected_name) = search.undo_redirect()?;
        if memchr::memchr(0, &script).is_some() {
            return None;
        }
        if script.is_empty()
            || (!script.ends_with(b"/") && files::exists(&script, settings.trust_files_for))
        {
            search.take_whole(&script, redirected_name);
            Some(script)
        } else {
            search.cut(script, redirected_name)
        }
    } else if settings.discard_path {
        search.script_filename.or(search.path_translated)
    } else {
        search.path_translated.or(search.script_filename)
    }
}

/// Variables that have a part in it, as they were sent until a method says otherwise.
struct Search<'a> {
    variables: &'a mut Variables,
    settings: &'a ScriptSettings,
    script_filename: Option<Vec<u8>>,
    path_translated: Option<Vec<u8>>,
    path_info: Option<Vec<u8>>,
    script_name: Option<Vec<u8>>,
    redirect_url: Option<Vec<u8>>,
    document_root: Option<Vec<u8>>,
    /// `SCRIPT_FILENAME` was a `proxy:` URL.
    from_proxy: bool,
}

impl<'a> Search<'a> {
    fn new(variables: &'a mut Variables, settings: &'a ScriptSettings) -> Self {
        let whole = |name: &[u8]| variables.get(name).map(<[u8]>::to_vec);
        let string = |name: &[u8]| variables.get(name).map(|value| up_to_nul(value).to_vec());
        Self {
            script_filename: whole(b"SCRIPT_FILENAME"),
            path_translated: whole(b"PATH_TRANSLATED"),
            path_info: string(b"PATH_INFO"),
            script_name: string(b"SCRIPT_NAME"),
            redirect_url: string(b"REDIRECT_URL"),
            document_root: string(b"DOCUMENT_ROOT"),
            from_proxy: false,
            variables,
            settings,
        }
    }

    /// IIS puts the script's name before the path info.
    fn repair_path_info_of_iis(&mut self) {
        let (Some(name), Some(info)) = (&self.script_name, &self.path_info) else {
            return;
        };
        let is_iis = self
            .variables
            .get(b"SERVER_SOFTWARE")
            .is_some_and(|software| software.starts_with(IIS));
        let Some(rest) = info.strip_prefix(&name[..]).filter(|_| is_iis) else {
            return;
        };
        self.variables.push(b"ORIG_PATH_INFO", info);
        let rest = (!rest.is_empty()).then(|| rest.to_vec());
        match &rest {
            Some(rest) => self.variables.push(b"PATH_INFO", rest),
            None => self.variables.remove(b"PATH_INFO"),
        }
        self.path_info = rest;
    }

    /// `proxy:fcgi://localhost:9000/srv/info.php/test?a=b` becomes `/srv/info.php/test`.
    fn strip_proxy_url(&mut self) {
        let Some(script) = &mut self.script_filename else {
            return;
        };
        let Some(prefix) = proxy_prefix(script) else {
            return;
        };
        if let Some(path) = memchr::memchr(b'/', &script[prefix..]) {
            script.drain(..prefix + path);
            self.from_proxy = true;
        }
        if let Some(query) = memchr::memchr(b'?', script) {
            script.truncate(query);
        }
        if self.from_proxy && self.settings.decode_script_path {
            *script = percent_decoded(script);
        }
        self.variables.push(b"SCRIPT_FILENAME", script);
    }

    fn default_document_root(&mut self) {
        if self.document_root.is_none() && !self.settings.doc_root.is_empty() {
            self.variables
                .push(b"DOCUMENT_ROOT", &self.settings.doc_root);
            self.document_root = Some(self.settings.doc_root.clone());
        }
    }

    /// The path to look at, and what `SCRIPT_NAME` should say if it says something wrong.
    ///
    /// Under an `Action` of Apache's (mod_fastcgi), `SCRIPT_FILENAME` and `SCRIPT_NAME` are those of the PHP program,
    /// and the script is in `PATH_TRANSLATED` and `REDIRECT_URL`. mod_proxy_fcgi may set the latter for other reasons.
    fn undo_redirect(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let script = self
            .script_filename
            .as_ref()
            .or(self.path_translated.as_ref())?;
        Some(match (&self.path_translated, &self.redirect_url) {
            (Some(translated), Some(url)) if !self.from_proxy && translated != script => {
                (translated.clone(), Some(url.clone()))
            }
            _ => (script.clone(), None),
        })
    }

    /// The path names something as it stands: there is no path info to be found in it.
    fn take_whole(&mut self, script: &[u8], redirected_name: Option<Vec<u8>>) {
        self.set_script_filename(script);
        if !self.from_proxy && self.redirect_url.is_some() {
            // What they say was said for the sake of PATH_TRANSLATED.
            if let Some(info) = &self.path_info {
                self.variables.push(b"ORIG_PATH_INFO", info);
                self.variables.remove(b"PATH_INFO");
            }
            if let Some(translated) = &self.path_translated {
                self.variables
                    .push(b"ORIG_PATH_TRANSLATED", up_to_nul(translated));
                self.variables.remove(b"PATH_TRANSLATED");
            }
        }
        if let Some(name) = redirected_name {
            self.push_script_name(&name);
        }
    }

    /// Cuts the path at its last slash, and again, until it names a file. The script is then that file, and path info
    /// what was cut off.
    fn cut(mut self, script: Vec<u8>, redirected_name: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut script_name = redirected_name.or_else(|| self.script_name.clone());
        let Some(end) = end_of_file_name(&script) else {
            if let Some(sent) = &self.script_filename {
                self.variables.push(b"ORIG_SCRIPT_FILENAME", sent);
            }
            self.variables.remove(b"SCRIPT_FILENAME");
            self.set_script_name(script_name.as_deref());
            return None;
        };
        let (file, rest) = script.split_at(end);
        let is_named = self.split_path_info(rest, &mut script_name);
        // php-fpm goes on with the whole path when SCRIPT_FILENAME need not change; limit_extensions refuses it then.
        let goes_on_whole = self.script_filename.as_deref() == Some(file);
        self.set_script_filename(file);
        self.translate(file, script_name.as_deref());
        if !is_named {
            self.set_script_name(script_name.as_deref());
        }
        Some(if goes_on_whole { script } else { file.to_vec() })
    }

    /// Sets `PATH_INFO`, and `SCRIPT_NAME` when that follows from it, which is what it answers. `rest` is what was
    /// cut off the script's path.
    fn split_path_info(&mut self, rest: &[u8], script_name: &mut Option<Vec<u8>>) -> bool {
        let sent = self.path_info.take();
        let (name, info) = match &sent {
            // Apache says otherwise than the URL.
            Some(sent) if self.from_proxy && sent != rest => (&sent[..], rest),
            // Some servers send the script's name and the path info as PATH_INFO.
            Some(sent) if !self.from_proxy && sent.len() > rest.len() => {
                sent.split_at(sent.len() - rest.len())
            }
            None if self.from_proxy => return self.split_script_name(rest, script_name),
            _ => {
                self.path_info = sent;
                return false;
            }
        };
        self.variables
            .push(b"ORIG_PATH_INFO", sent.as_deref().unwrap_or_default());
        self.set_script_name(Some(name));
        self.set_path_info(info);
        true
    }

    /// With `ProxyPass`, Apache sends no `PATH_INFO`, and `info` is at the end of `SCRIPT_NAME` too, there decoded.
    fn split_script_name(&mut self, info: &[u8], script_name: &mut Option<Vec<u8>>) -> bool {
        let Some(sent) = script_name.as_deref() else {
            self.set_path_info(info);
            return false;
        };
        let decoded = memchr::memchr(b'%', info).map(|_| percent_decoded(info));
        let before = |info: &[u8]| {
            sent.strip_suffix(info)
                .filter(|name| !name.is_empty())
                .map(<[u8]>::to_vec)
        };
        let name = before(info).or_else(|| decoded.as_deref().and_then(before));
        if let Some(name) = &name {
            self.set_script_name(Some(name));
        }
        match &decoded {
            Some(decoded) if self.settings.decode_path_info => {
                self.set_path_info(up_to_nul(decoded));
            }
            _ => self.set_path_info(info),
        }
        let is_named = name.is_some();
        *script_name = name.or_else(|| script_name.take());
        is_named
    }

    /// `PATH_TRANSLATED` is the path info below the document root, which is `DOCUMENT_ROOT` or what stands before
    /// `SCRIPT_NAME` in the file's path.
    fn translate(&mut self, file: &[u8], script_name: Option<&[u8]>) {
        let root = match (&self.document_root, script_name) {
            (Some(root), _) => root.strip_suffix(b"/").unwrap_or(root),
            (None, Some(name)) if memchr::memmem::find(file, name).is_some() => {
                &file[..file.len() - name.len()]
            }
            _ => return,
        };
        let translated = [root, self.path_info.as_deref().unwrap_or_default()].concat();
        if let Some(sent) = &self.path_translated {
            self.variables
                .push(b"ORIG_PATH_TRANSLATED", up_to_nul(sent));
        }
        self.variables.push(b"PATH_TRANSLATED", &translated);
    }

    fn set_path_info(&mut self, info: &[u8]) {
        self.variables.push(b"PATH_INFO", info);
        self.path_info = Some(info.to_vec());
    }

    /// Sets `SCRIPT_FILENAME` and keeps what was sent, if that was something else.
    fn set_script_filename(&mut self, script: &[u8]) {
        if self.script_filename.as_deref() != Some(script) {
            if let Some(sent) = &self.script_filename {
                self.variables.push(b"ORIG_SCRIPT_FILENAME", sent);
            }
            self.variables.push(b"SCRIPT_FILENAME", script);
        }
    }

    /// Sets `SCRIPT_NAME` and keeps what was sent, if that was something else.
    fn set_script_name(&mut self, name: Option<&[u8]>) {
        if let Some(name) = name.filter(|name| self.script_name.as_deref() != Some(name)) {
            self.push_script_name(name);
        }
    }

    fn push_script_name(&mut self, name: &[u8]) {
        if let Some(sent) = &self.script_name {
            self.variables.push(b"ORIG_SCRIPT_NAME", sent);
        }
        self.variables.push(b"SCRIPT_NAME", name);
    }
}

/// Where to cut `path` so that it names a regular file. A backslash counts where there is no slash.
fn end_of_file_name(path: &[u8]) -> Option<usize> {
    let mut end = path.len();
    loop {
        end = memrchr(b'/', &path[..end]).or_else(|| memrchr(b'\\', &path[..end]))?;
        if files::is_regular_file(&path[..end]) {
            return Some(end);
        }
    }
}

/// Length of the scheme of Apache's proxy URLs.
fn proxy_prefix(script: &[u8]) -> Option<usize> {
    const PREFIXES: [&[u8]; 2] = [b"proxy:fcgi://", b"proxy:balancer://"];
    let begins = |prefix: &&[u8]| {
        script
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    PREFIXES
        .iter()
        .find(|prefix| begins(prefix))
        .map(|prefix| prefix.len())
}

fn up_to_nul(value: &[u8]) -> &[u8] {
    &value[..memchr::memchr(0, value).unwrap_or(value.len())]
}

/// As PHP's `rawurldecode`.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| {
        text.get(at)
            .and_then(|&byte| char::from(byte).to_digit(16))
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
