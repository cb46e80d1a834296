//! A visitor of a site: keeps cookies, follows redirects, fills in the forms of pages.

use std::collections::BTreeMap;

use crate::frontends::http::{Answer, Call, Site, Upload};

/// One visitor. Every answer must be 200 in the end.
#[derive(Debug)]
pub(crate) struct Browser<'a> {
    site: &'a Site,
    cookies: BTreeMap<String, String>,
}

/// A form of a page, with the values that the page gave its fields.
#[derive(Debug)]
pub(crate) struct Form {
    action: String,
    multipart: bool,
    fields: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    /// Somebody who has not been there before.
    pub(crate) fn new(site: &'a Site) -> Self {
        Self {
            site,
            cookies: BTreeMap::new(),
        }
    }

    /// The page at `address`: a path, or the whole of it.
    pub(crate) fn get(&mut self, address: &str) -> Answer {
        let answer = self.call("GET", address).send();
        self.follow(address, answer)
    }

    /// Sends `form`, with these fields set.
    pub(crate) fn submit(&mut self, form: Form, fields: &[(&str, &str)]) -> Answer {
        self.send(form, fields, None)
    }

    /// Sends `form` with a file, and with these fields set.
    pub(crate) fn upload(
        &mut self,
        form: Form,
        fields: &[(&str, &str)],
        upload: Upload<'_>,
    ) -> Answer {
        self.send(form, fields, Some(upload))
    }

    fn send(&mut self, form: Form, fields: &[(&str, &str)], upload: Option<Upload<'_>>) -> Answer {
        let Form {
            action,
            multipart,
            fields: mut all,
        } = form;
        all.retain(|(name, _)| !fields.iter().any(|(set, _)| set == name));
        let all: Vec<(&str, &str)> = all
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .chain(fields.iter().copied())
            .collect();
        let call = self.call("POST", &action);
        let answer = match upload {
            Some(upload) => {
                assert!(multipart, "the form for {action} takes no file");
                call.send_multipart(&all, upload)
            }
            None => call.send_form(&all),
        };
        self.follow(&action, answer)
    }

    fn call(&self, method: &str, address: &str) -> Call<'a> {
        let path = address
            .strip_prefix(self.site.base_url())
            .unwrap_or(address);
        assert!(
            path.starts_with('/'),
            "{address} is not on {}",
            self.site.base_url()
        );
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let call = self.site.request(method, path.split('#').next().unwrap());
        if cookies.is_empty() {
            call
        } else {
            call.header("Cookie", &cookies.join("; "))
        }
    }

    fn follow(&mut self, address: &str, mut answer: Answer) -> Answer {
        for _ in 0..5 {
            self.keep_cookies(&answer);
            if !matches!(answer.status, 301..=303) {
                break;
            }
            answer = self.call("GET", answer.header("Location")).send();
        }
        assert_eq!(answer.status, 200, "{address}: {answer:?}");
        answer
    }

    fn keep_cookies(&mut self, answer: &Answer) {
        for cookie in answer.all_headers("Set-Cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if value == "deleted" || attributes.to_ascii_lowercase().contains("max-age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

impl Form {
    /// The form of `page` whose start tag contains `mark`. Its buttons are left out, as none has been pressed.
    pub(crate) fn find(page: &Answer, mark: &str) -> Self {
        let html = page.text();
        let start = |html: &str| {
            tags(html, "form")
                .find(|tag| tag.contains(mark))
                .map(str::to_owned)
        };
        let tag = start(&html).unwrap_or_else(|| panic!("no form with {mark} in {page:?}"));
        let rest = html.split_once(&tag).unwrap().1;
        let body = rest.split_once("</form>").unwrap().0;
        let mut fields = Vec::new();
        for input in tags(body, "input") {
            let kind = attribute(input, "type").unwrap_or_default();
            let pressed = match kind.as_str() {
                "submit" | "button" | "image" | "file" | "reset" => false,
                "checkbox" | "radio" => input.contains(" checked"),
                _ => true,
            };
            if let (true, Some(name)) = (pressed, attribute(input, "name")) {
                let value = attribute(input, "value").unwrap_or_default();
                fields.push((name, value));
            }
        }
        let multipart =
            attribute(&tag, "enctype").is_some_and(|kind| kind == "multipart/form-data");
        Self {
            action: attribute(&tag, "action").unwrap(),
            multipart,
            fields,
        }
    }

    /// The field of this name, or "".
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields
            .iter()
            .find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }
}

/// The value of `attribute` in the first `tag` of `html` that contains `mark`.
pub(crate) fn find_attribute(html: &str, tag: &str, mark: &str, name: &str) -> String {
    let found = tags(html, tag)
        .find(|tag| tag.contains(mark))
        .and_then(|tag| attribute(tag, name));
    found.unwrap_or_else(|| panic!("no <{tag}> with {mark} that has {name}: {html}"))
}

/// All start tags of this name, whole.
fn tags<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let start = format!("<{name} ");
    let starts: Vec<usize> = html.match_indices(&start).map(|(at, _)| at).collect();
    starts
        .into_iter()
        .filter_map(move |at| html[at..].find('>').map(|length| &html[at..=at + length]))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    for quote in ['"', '\''] {
        let start = format!(" {name}={quote}");
        if let Some((_, rest)) = tag.split_once(&start) {
            return rest.split_once(quote).map(|(value, _)| decode(value));
        }
    }
    None
}

fn decode(text: &str) -> String {
    let mut text = text.to_owned();
    for (entity, character) in [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#039;", "'"),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#43;", "+"),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, character);
    }
    text
}
