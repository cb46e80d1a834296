//! Words of PHP's INI syntax, as `zend_ini_scanner.l` cuts them in its normal mode.
//!
//! Of all rules of a state the one with the longest match wins, and of equally long ones the first: [`Longest`] does
//! the same, so the order of the calls here is the order of the rules there.

/// A word with its value, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    End,
    /// `[` of a section
    Section,
    Raw(Vec<u8>),
    Constant(Vec<u8>),
    Number(Vec<u8>),
    Text(Vec<u8>),
    Whitespace(Vec<u8>),
    Label(Vec<u8>),
    /// `name[`
    Offset(Vec<u8>),
    /// `${`
    DollarCurly,
    VarName(Vec<u8>),
    /// `:-` within `${}`, since PHP 8.3
    Fallback,
    /// A part of a double-quoted string, its escapes resolved.
    Quoted(Vec<u8>),
    True,
    False,
    Null,
    EndOfLine,
    /// One character that stands for itself.
    Char(u8),
}

impl Token {
    /// The name in PHP's messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::End => "end of file",
            Self::Section => "TC_SECTION",
            Self::Raw(_) => "TC_RAW",
            Self::Constant(_) => "TC_CONSTANT",
            Self::Number(_) => "TC_NUMBER",
            Self::Text(_) => "TC_STRING",
            Self::Whitespace(_) => "TC_WHITESPACE",
            Self::Label(_) => "TC_LABEL",
            Self::Offset(_) => "TC_OFFSET",
            Self::DollarCurly => "TC_DOLLAR_CURLY",
            Self::VarName(_) => "TC_VARNAME",
            Self::Fallback => "TC_FALLBACK",
            Self::Quoted(_) => "TC_QUOTED_STRING",
            Self::True => "BOOL_TRUE",
            Self::False => "BOOL_FALSE",
            Self::Null => "NULL_NULL",
            Self::EndOfLine => "END_OF_LINE",
            Self::Char(b'\'') => "'\\''",
            Self::Char(c) => return format!("'{}'", char::from(*c)),
        }
        .to_owned()
    }
}

/// Cuts a text into words.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
    stack: Vec<State>,
    /// The syntax of PHP 8.3 and later: `${name:-fallback}`, and no `]` in names.
    newer: bool,
    line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initial,
    Value,
    SectionValue,
    Offset,
    DoubleQuotes,
    VarName,
    VarFallback,
}

/// What a rule does with its match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Section,
    CloseSection,
    CloseOffset,
    Offset,
    Label,
    Equals,
    EqualsInValue,
    True,
    False,
    Null,
    Raw,
    DollarCurly,
    Constant,
    Number,
    Text,
    Whitespace,
    OpenQuotes,
    Operator,
    Newline,
    Comment,
    Skip,
    EndOfValue,
    CloseVariable,
}

/// The longest match so far.
struct Longest {
    length: usize,
    rule: Option<Rule>,
}

impl Longest {
    fn offer(&mut self, length: usize, rule: Rule) {
        if length > self.length {
            self.length = length;
            self.rule = Some(rule);
        }
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8], newer: bool) -> Self {
        Self {
            text,
            at: 0,
            state: State::Initial,
            stack: Vec::new(),
            newer,
            line: 1,
        }
    }

    /// The line that the last word ended in, from 1.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// The next word; [`Token::End`] at the end and at bytes that no rule knows.
    pub(super) fn next(&mut self) -> Token {
        loop {
            if self.at >= self.text.len() {
                if self.state == State::Value {
                    self.state = State::Initial;
                    return Token::EndOfLine;
                }
                return Token::End;
            }
            if self.at == 0 && self.text.len() > 3 && self.text.starts_with(b"\xef\xbb\xbf") {
                self.at = 3;
            }
            let token = match self.state {
                State::DoubleQuotes => Some(self.double_quotes()),
                State::VarName => Some(self.var_name()),
                _ => self.word(),
            };
            if let Some(token) = token {
                return token;
            }
        }
    }

    /// A word outside double quotes and variable names; `None` for blanks between words.
    fn word(&mut self) -> Option<Token> {
        let rest = &self.text[self.at..];
        let best = match self.state {
            State::Initial => initial(rest, self.newer),
            State::Value => value(rest),
            _ => offset(rest, self.state),
        };
        let Some(rule) = best.rule else {
            return Some(Token::End);
        };
        let matched = &rest[..best.length];
        self.at += best.length;
        Some(match rule {
            Rule::Skip => return None,
            Rule::Section => {
                self.state = State::SectionValue;
                Token::Section
            }
            Rule::CloseSection => {
                self.state = State::Initial;
                self.line += 1;
                Token::Char(b']')
            }
            Rule::CloseOffset => {
                self.state = State::Initial;
                Token::Char(b']')
            }
            Rule::Offset => {
                self.state = State::Offset;
                let name = trim_start(matched);
                let end = name
                    .iter()
                    .rposition(|&b| b != b'[' && !is_space(b))
                    .map_or(0, |last| last + 1);
                Token::Offset(name[..end].to_vec())
            }
            Rule::Label => Token::Label(trim_end(trim_start(matched)).to_vec()),
            Rule::Equals => {
                self.state = State::Value;
                Token::Char(b'=')
            }
            Rule::EqualsInValue => {
                self.at -= best.length;
                self.state = State::Initial;
                Token::EndOfLine
            }
            Rule::True => Token::True,
            Rule::False => Token::False,
            Rule::Null => Token::Null,
            Rule::Raw => Token::Raw(matched[1..best.length - 1].to_vec()),
            Rule::DollarCurly => {
                self.stack.push(self.state);
                self.state = State::VarName;
                Token::DollarCurly
            }
            Rule::Constant => Token::Constant(matched.to_vec()),
            Rule::Number => Token::Number(matched.to_vec()),
            Rule::Text => Token::Text(matched.to_vec()),
            Rule::Whitespace => Token::Whitespace(matched.to_vec()),
            Rule::OpenQuotes => {
                self.stack.push(self.state);
                self.state = State::DoubleQuotes;
                Token::Char(b'"')
            }
            Rule::Operator => Token::Char(matched[0]),
            Rule::Newline | Rule::Comment => {
                self.state = State::Initial;
                self.line += 1;
                Token::EndOfLine
            }
            Rule::EndOfValue if matched == b"'" && !rest[1..].contains(&b'\'') => {
                // A quote that is not closed. PHP reads on behind the end of its buffer for it.
                self.at = self.text.len();
                Token::End
            }
            Rule::EndOfValue => {
                self.state = State::Initial;
                Token::EndOfLine
            }
            Rule::CloseVariable => {
                self.pop();
                Token::Char(b'}')
            }
        })
    }

    fn var_name(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if rest[0] == b'}' {
            self.at += 1;
            self.pop();
            return Token::Char(b'}');
        }
        if self.newer && rest.starts_with(b":-") {
            self.at += 2;
            self.state = State::VarFallback;
            return Token::Fallback;
        }
        let mut length = label(rest, self.newer);
        if self.newer
            && let Some(end) = rest[..length].windows(2).position(|pair| pair == b":-")
        {
            length = end;
        }
        if length == 0 {
            return Token::End;
        }
        self.at += length;
        Token::VarName(trim_end(trim_start(&rest[..length])).to_vec())
    }

    /// Part of a double-quoted string, up to its end or a variable.
    fn double_quotes(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if rest[0] == b'"' {
            self.at += 1 + blanks(&rest[1..]);
            self.pop();
            return Token::Char(b'"');
        }
        if rest.starts_with(b"${") {
            self.at += 2;
            self.stack.push(self.state);
            self.state = State::VarName;
            return Token::DollarCurly;
        }
        let mut end = 0;
        while end < rest.len() {
            match rest[end] {
                b'"' => break,
                b'$' if rest.get(end + 1) == Some(&b'{') => break,
                b'\\' if end + 1 < rest.len() => {
                    // Windows paths: "C:\path\" ends here when nothing follows it.
                    if rest[end + 1] == b'"'
                        && matches!(rest.get(end + 2), None | Some(b'\n' | b'\r'))
                    {
                        end += 1;
                        break;
                    }
                    end += 2;
                }
                _ => end += 1,
            }
        }
        self.at += end;
        Token::Quoted(self.unescape(&rest[..end]))
    }

    /// Resolves `\"`, `\\` and `\$`; other backslashes stay.
    fn unescape(&mut self, text: &[u8]) -> Vec<u8> {
        let mut result = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            if text[at] == b'\\' {
                at += 1;
                match text.get(at) {
                    None => {
                        result.push(b'\\');
                        break;
                    }
                    Some(&escaped @ (b'"' | b'\\' | b'$')) => result.push(escaped),
                    Some(&other) => result.extend([b'\\', other]),
                }
            } else {
                result.push(text[at]);
            }
            if text[at] == b'\n' || (text[at] == b'\r' && text.get(at + 1) != Some(&b'\n')) {
                self.line += 1;
            }
            at += 1;
        }
        result
    }

    fn pop(&mut self) {
        self.state = self.stack.pop().unwrap_or(State::Initial);
    }
}

fn initial(rest: &[u8], newer: bool) -> Longest {
    let mut best = Longest {
        length: 0,
        rule: None,
    };
    if rest[0] == b'[' {
        best.offer(1, Rule::Section);
    }
    let label = label(rest, newer);
    if label > 0 && rest.get(label) == Some(&b'[') {
        best.offer(label + 1 + blanks(&rest[label + 1..]), Rule::Offset);
    }
    keywords(rest, &mut best);
    best.offer(label, Rule::Label);
    let blank = blanks(rest);
    if rest.get(blank) == Some(&b'=') {
        best.offer(blank + 1 + blanks(&rest[blank + 1..]), Rule::Equals);
    }
    if b":,.[]\"'()&|^+-/*=%$!~<>?@{}".contains(&rest[0]) {
        best.offer(1, Rule::Operator);
    }
    best.offer(blank, Rule::Skip);
    end_of_line(rest, blank, &mut best);
    best
}

fn value(rest: &[u8]) -> Longest {
    let mut best = Longest {
        length: 0,
        rule: None,
    };
    best.offer(single_quoted(rest), Rule::Raw);
    if rest.starts_with(b"${") {
        best.offer(2, Rule::DollarCurly);
    }
    keywords(rest, &mut best);
    let blank = blanks(rest);
    best.offer(constant(rest), Rule::Constant);
    best.offer(number(rest), Rule::Number);
    if b"&|^~()!".contains(&rest[0]) {
        best.offer(1 + blanks(&rest[1..]), Rule::Operator);
    }
    if rest[0] == b'=' {
        best.offer(1, Rule::EqualsInValue);
    }
    best.offer(
        run(rest, |b| !b"$= \t\n\r;&|^~()!\"'\0".contains(&b), false),
        Rule::Text,
    );
    open_quotes(rest, blank, &mut best);
    end_of_line(rest, blank, &mut best);
    best.offer(blank, Rule::Whitespace);
    best.offer(1, Rule::EndOfValue);
    best
}

/// In the brackets of a section or an offset, and in the fallback of a variable.
fn offset(rest: &[u8], state: State) -> Longest {
    let mut best = Longest {
        length: 0,
        rule: None,
    };
    if state != State::VarFallback {
        best.offer(single_quoted(rest), Rule::Raw);
    }
    let blank = blanks(rest);
    match state {
        State::SectionValue if rest[0] == b']' => {
            let end = 1 + blanks(&rest[1..]);
            best.offer(end + newline(&rest[end..]), Rule::CloseSection);
        }
        State::Offset if rest.get(blank) == Some(&b']') => {
            best.offer(blank + 1, Rule::CloseOffset);
        }
        State::VarFallback if rest[0] == b'}' => best.offer(1, Rule::CloseVariable),
        _ => {}
    }
    if rest.starts_with(b"${") {
        best.offer(2, Rule::DollarCurly);
    }
    best.offer(constant(rest), Rule::Constant);
    best.offer(number(rest), Rule::Number);
    let close = if state == State::VarFallback {
        b'}'
    } else {
        b']'
    };
    let plain = |b: u8| !b"$\n\r;\"'\\\0".contains(&b) && b != close;
    best.offer(run(rest, plain, true), Rule::Text);
    open_quotes(rest, blank, &mut best);
    best.offer(blank, Rule::Whitespace);
    best
}

fn keywords(rest: &[u8], best: &mut Longest) {
    for (words, rule) in [
        (&["true", "on", "yes"][..], Rule::True),
        (&["false", "off", "no", "none"], Rule::False),
        (&["null"], Rule::Null),
    ] {
        for word in words {
            if rest
                .get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
            {
                best.offer(word.len() + blanks(&rest[word.len()..]), rule);
            }
        }
    }
}

fn open_quotes(rest: &[u8], blank: usize, best: &mut Longest) {
    if rest.get(blank) == Some(&b'"') {
        best.offer(blank + 1, Rule::OpenQuotes);
    }
}

/// The end of a line, with or without a comment before it.
fn end_of_line(rest: &[u8], blank: usize, best: &mut Longest) {
    let end = newline(&rest[blank..]);
    if end > 0 {
        best.offer(blank + end, Rule::Newline);
    }
    if rest.get(blank) == Some(&b';') {
        let comment = rest[blank..]
            .iter()
            .take_while(|&&b| b != b'\r' && b != b'\n')
            .count();
        let end = newline(&rest[blank + comment..]);
        if end > 0 {
            best.offer(blank + comment + end, Rule::Comment);
        }
    }
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|&&b| b == b' ' || b == b'\t')
        .count()
}

fn newline(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

fn label(text: &[u8], newer: bool) -> usize {
    let ends = |byte: u8| b"=\n\r\t;&|^$~(){}!\"[".contains(&byte) || (newer && byte == b']');
    text.iter().take_while(|&&byte| !ends(byte)).count()
}

fn constant(text: &[u8]) -> usize {
    if !text[0].is_ascii_alphabetic() && text[0] != b'_' {
        return 0;
    }
    text.iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
        .count()
}

/// `-?[0-9]+`, or digits with a point in them.
fn number(text: &[u8]) -> usize {
    let digits = |from: usize| {
        text[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    if text[0] == b'-' {
        let count = digits(1);
        return if count > 0 { 1 + count } else { 0 };
    }
    let whole = digits(0);
    if text.get(whole) != Some(&b'.') {
        return whole;
    }
    let fraction = digits(whole + 1);
    if whole + fraction > 0 {
        whole + 1 + fraction
    } else {
        0
    }
}

fn single_quoted(text: &[u8]) -> usize {
    if text[0] != b'\'' {
        return 0;
    }
    match text[1..].iter().position(|&b| b == b'\'') {
        Some(content) if content > 0 => content + 2,
        _ => 0,
    }
}

/// The longest run of plain characters, of a `$` with what follows it (but `{`), and of escapes where `escapes` is set.
///
/// `$` and a backslash may take two characters or three, and which it was shows only later; so all ends that are
/// possible are followed at once: bit n of `open` is an end n characters on.
fn run(text: &[u8], plain: impl Fn(u8) -> bool, escapes: bool) -> usize {
    let mut open = 1_u8;
    let mut longest = 0;
    for (at, &byte) in text.iter().enumerate() {
        if open & 1 != 0 {
            longest = at;
            if plain(byte) {
                open |= 1 << 1;
            }
            let next = text.get(at + 1).copied();
            if byte == b'$' && next.is_some_and(|b| b != b'{' && b != 0) {
                open |= 1 << 2;
                if next == Some(b'\\') && at + 2 < text.len() {
                    open |= 1 << 3;
                }
            }
            if escapes && byte == b'\\' && next.is_some() {
                open |= 1 << 2;
            }
        }
        open >>= 1;
        if open == 0 {
            return longest;
        }
    }
    if open & 1 != 0 { text.len() } else { longest }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim_start(text: &[u8]) -> &[u8] {
    &text[blanks(text)..]
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|&b| !is_space(b))
        .map_or(0, |last| last + 1);
    &text[..end]
}
