//! PHP's INI syntax, as php-fpm reads it: `zend_ini_parser.y` in its normal mode.
//!
//! php-fpm gives PHP one line of its file at a time, so nothing here spans lines. The statements are handed over as
//! they are read: those before a syntax error count.

mod constants;
mod scanner;

use scanner::{Scanner, Token};

/// What values may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment<'a> {
    /// `PHP_VERSION`
    pub(crate) php_version: [u32; 3],
    /// `PHP_PREFIX`
    pub(crate) prefix: &'a str,
    /// `PHP_SYSCONFDIR`
    pub(crate) sysconfdir: &'a str,
    /// `PHP_LOCALSTATEDIR`
    pub(crate) localstatedir: &'a str,
    /// `${name}`: a setting of `-d`, else a variable of the environment.
    pub(crate) variable: fn(&[u8]) -> Option<Vec<u8>>,
    /// Settings of `-d`, which come before the environment.
    pub(crate) defines: &'a [(String, String)],
}

impl Environment<'_> {
    /// `${name:-fallback}`
    fn has_fallbacks(&self) -> bool {
        self.php_version >= [8, 3, 0]
    }
}

/// One statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// `[name]`
    Section(Vec<u8>),
    /// `name = value`, or `name` alone.
    Entry(Vec<u8>, Option<Vec<u8>>),
    /// `name[key] = value`
    Element(Vec<u8>, Vec<u8>, Vec<u8>),
}

/// PHP's message, such as `syntax error, unexpected '='`, and the line of the text that it was found in, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) line: u32,
}

/// Reads `text` and calls `each` for every statement.
pub(crate) fn parse(
    text: &[u8],
    environment: &Environment<'_>,
    each: &mut dyn FnMut(Statement),
) -> Result<(), SyntaxError> {
    // PHP's strings end at a NUL, and so does what it reads.
    let text = text.split(|&b| b == 0).next().unwrap_or(text);
    let mut parser = Parser {
        scanner: Scanner::new(text, environment.has_fallbacks()),
        ahead: None,
        environment,
        depth: 0,
    };
    parser.statements(each)
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    /// A word that has been read but not used.
    ahead: Option<Token>,
    environment: &'a Environment<'a>,
    /// How deep parentheses, operators and variables are nested.
    depth: u32,
}

/// Nesting beyond this is an error, as PHP's parser has a limit of its own ("memory exhausted").
const MAX_DEPTH: u32 = 200;

impl Parser<'_> {
    fn statements(&mut self, each: &mut dyn FnMut(Statement)) -> Result<(), SyntaxError> {
        loop {
            match self.take() {
                Token::End => return Ok(()),
                Token::EndOfLine => {}
                Token::Section => {
                    let name = self.literals(Words::Section)?.unwrap_or_default();
                    self.expect(b']')?;
                    each(Statement::Section(name));
                }
                Token::Label(name) => match self.take() {
                    Token::Char(b'=') => {
                        let value = self.value()?;
                        each(Statement::Entry(name, Some(value)));
                    }
                    other => {
                        self.ahead = Some(other);
                        each(Statement::Entry(name, None));
                    }
                },
                Token::Offset(name) => {
                    let key = self.literals(Words::Value)?.unwrap_or_default();
                    self.expect(b']')?;
                    self.expect(b'=')?;
                    let value = self.value()?;
                    each(Statement::Element(name, key, value));
                }
                other => return Err(self.unexpected(&other, "")),
            }
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, SyntaxError> {
        match self.take() {
            Token::True => Ok(b"1".to_vec()),
            Token::False | Token::Null | Token::EndOfLine => Ok(Vec::new()),
            other => {
                self.ahead = Some(other);
                self.expression()
            }
        }
    }

    /// Operands with `|`, `&` and `^` between them, which bind alike, from left to right.
    fn expression(&mut self) -> Result<Vec<u8>, SyntaxError> {
        let mut left = self.operand()?;
        loop {
            match self.take() {
                Token::Char(operator @ (b'|' | b'&' | b'^')) => {
                    let right = self.operand()?;
                    let (a, b) = (atoi(&left), atoi(&right));
                    let result = match operator {
                        b'|' => a | b,
                        b'&' => a & b,
                        _ => a ^ b,
                    };
                    left = result.to_string().into_bytes();
                }
                other => {
                    self.ahead = Some(other);
                    return Ok(left);
                }
            }
        }
    }

    fn operand(&mut self) -> Result<Vec<u8>, SyntaxError> {
        self.deeper()?;
        let result = match self.take() {
            Token::Char(b'~') => (!atoi(&self.operand()?)).to_string().into_bytes(),
            Token::Char(b'!') => i32::from(atoi(&self.operand()?) == 0)
                .to_string()
                .into_bytes(),
            Token::Char(b'(') => {
                let inner = self.expression()?;
                match self.take() {
                    Token::Char(b')') => inner,
                    other => return Err(self.unexpected(&other, "'^' or '|' or '&' or ')'")),
                }
            }
            other => {
                self.ahead = Some(other);
                match self.literals(Words::Value)? {
                    Some(text) => text,
                    None => {
                        let other = self.take();
                        return Err(self.unexpected(&other, ""));
                    }
                }
            }
        };
        self.depth -= 1;
        Ok(result)
    }

    /// Words, strings and variables one after the other, put together; `None` if there is none.
    fn literals(&mut self, words: Words) -> Result<Option<Vec<u8>>, SyntaxError> {
        let mut result: Option<Vec<u8>> = None;
        loop {
            let part = match self.take() {
                Token::Constant(name) if words == Words::Value => {
                    match constants::value(&name, self.environment) {
                        Some(value) => value.into_bytes(),
                        None => name,
                    }
                }
                Token::Constant(text)
                | Token::Raw(text)
                | Token::Number(text)
                | Token::Text(text)
                | Token::Whitespace(text) => text,
                Token::DollarCurly => self.variable()?,
                Token::Char(b'"') => self.quoted()?,
                other => {
                    self.ahead = Some(other);
                    return Ok(result);
                }
            };
            result.get_or_insert_default().extend(part);
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, SyntaxError> {
        let mut result = Vec::new();
        loop {
            match self.take() {
                Token::Quoted(text) => result.extend(text),
                Token::DollarCurly => result.extend(self.variable()?),
                Token::Char(b'"') => return Ok(result),
                other => {
                    return Err(
                        self.unexpected(&other, "TC_DOLLAR_CURLY or TC_QUOTED_STRING or '\"'")
                    );
                }
            }
        }
    }

    /// The rest of `${name}` or `${name:-fallback}`.
    fn variable(&mut self) -> Result<Vec<u8>, SyntaxError> {
        self.deeper()?;
        let name = match self.take() {
            Token::VarName(name) => name,
            other => return Err(self.unexpected(&other, "TC_VARNAME")),
        };
        let mut fallback = Vec::new();
        match self.take() {
            Token::Char(b'}') => {}
            Token::Fallback => {
                fallback = self.literals(Words::Value)?.unwrap_or_default();
                self.expect(b'}')?;
            }
            other if self.environment.has_fallbacks() => {
                return Err(self.unexpected(&other, "TC_FALLBACK or '}'"));
            }
            other => return Err(self.unexpected(&other, "'}'")),
        }
        self.depth -= 1;
        let define = self
            .environment
            .defines
            .iter()
            .rfind(|(define, _)| define.as_bytes() == name);
        Ok(match define {
            Some((_, value)) => value.clone().into_bytes(),
            None => (self.environment.variable)(&name).unwrap_or(fallback),
        })
    }

    fn take(&mut self) -> Token {
        match self.ahead.take() {
            Some(token) => token,
            None => self.scanner.next(),
        }
    }

    fn expect(&mut self, character: u8) -> Result<(), SyntaxError> {
        let token = self.take();
        if token == Token::Char(character) {
            return Ok(());
        }
        Err(self.unexpected(&token, &Token::Char(character).name()))
    }

    fn deeper(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(SyntaxError {
            message: "memory exhausted".to_owned(),
            line: self.scanner.line(),
        })
    }

    fn unexpected(&self, token: &Token, expected: &str) -> SyntaxError {
        let separator = if expected.is_empty() {
            ""
        } else {
            ", expecting "
        };
        SyntaxError {
            message: format!(
                "syntax error, unexpected {}{separator}{expected}",
                token.name()
            ),
            line: self.scanner.line(),
        }
    }
}

/// Where words stand; in section names no constant is resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Section,
    Value,
}

/// C's `atoi`: leading blanks, a sign, digits; what follows is ignored, and what is too big is cut to 32 bits.
#[allow(clippy::cast_possible_truncation)] // as atoi() does it
pub(crate) fn atoi(text: &[u8]) -> i32 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut number: i64 = 0;
    for digit in digits.iter().take_while(|b| b.is_ascii_digit()) {
        let digit = i64::from(digit - b'0');
        number = number.saturating_mul(10);
        number = if negative {
            number.saturating_sub(digit)
        } else {
            number.saturating_add(digit)
        };
    }
    number as i32
}

#[cfg(test)]
mod tests;
