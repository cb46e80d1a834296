//! STUB
use crate::request::{Script, Variables};
use crate::engine::CgiSettings;
#[derive(Debug)]
pub(crate) struct ScriptSettings;
impl From<CgiSettings> for ScriptSettings { fn from(_: CgiSettings) -> Self { Self } }
pub(crate) fn resolve(variables: &mut Variables, _s: &ScriptSettings) -> Script {
    match variables.get(b"SCRIPT_FILENAME") { Some(path) if std::path::Path::new(std::str::from_utf8(path).unwrap_or("")).is_file() => Script::File { path: path.to_vec() }, _ => Script::NotFound }
}
