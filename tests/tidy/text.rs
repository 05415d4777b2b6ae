//! Separates comments from code.

use crate::Fault;
use crate::tree::{Language, language};
use std::ops::Range;

/// Comments that belong together, or a whole page: a text that is read as one.
#[derive(Debug, PartialEq, Eq)]
pub struct Passage {
    /// Path of the file.
    pub path: String,
    /// Language of the file.
    pub language: Language,
    /// First line, counted from 1.
    line: usize,
    /// Lines without their comment marks.
    pub text: String,
}

impl Passage {
    /// A fault at this byte of the text.
    pub fn fault(&self, offset: usize, what: String) -> Fault {
        Fault { path: self.path.clone(), line: self.line_at(offset), what }
    }

    /// The line in the file of the byte at `offset` of the text.
    fn line_at(&self, offset: usize) -> usize {
        self.line + self.text[..offset].matches('\n').count()
    }
}

/// The texts of a file for its reader: the whole page, or runs of comments.
pub fn passages(path: &str, text: &str) -> Vec<Passage> {
    let language = language(path, text);
    let said = match language {
        Language::Markdown => vec![(1, text.to_owned())],
        Language::Other => Vec::new(),
        _ => runs(text, &comments(path, text)),
    };
    let passage = |(line, text)| Passage { path: path.to_owned(), language, line, text };
    said.into_iter().map(passage).collect()
}

/// A file's text with spaces in place of comments.
pub fn code(path: &str, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in comments(path, text) {
        bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ranges of comments, each on one line; a page has none.
fn comments(path: &str, text: &str) -> Vec<Range<usize>> {
    let found = match language(path, text) {
        Language::Rust | Language::C => comments_of_c(text),
        Language::Hash => comments_of_hash(text),
        Language::Markdown | Language::Other => Vec::new(),
    };
    found.into_iter().flat_map(|range| lines_of(text, range)).collect()
}

fn lines_of(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut at = range.start;
    let pieces = text[range].split_inclusive('\n').map(|piece| {
        let start = at;
        at += piece.len();
        start..start + piece.trim_end_matches('\n').len()
    });
    pieces.collect()
}

/// Joins comments on adjacent lines, each with the number of the first line.
fn runs(text: &str, comments: &[Range<usize>]) -> Vec<(usize, String)> {
    let mut runs: Vec<(usize, String)> = Vec::new();
    let (mut line, mut last, mut counted) = (1, 0, 0);
    for range in comments {
        line += text[counted..range.start].matches('\n').count();
        counted = range.start;
        let said = text[range.clone()].trim_start_matches(['/', '*', '!', '#', ' ', '\t']);
        let said = said.trim_end_matches("*/").trim_end();
        match runs.last_mut() {
            Some((_, run)) if last + 1 == line => {
                run.push('\n');
                run.push_str(said);
            }
            _ => runs.push((line, said.into())),
        }
        last = line;
    }
    runs
}

/// Comments of Rust and C: `//` and `/* */` outside of literals.
fn comments_of_c(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let len = if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            found.push(at..at + len);
            len
        } else if rest.starts_with("/*") {
            let len = rest.find("*/").map_or(rest.len(), |end| end + 2);
            found.push(at..at + len);
            len
        } else {
            literal(text, at).or(rest.chars().next().map(char::len_utf8)).unwrap_or(1)
        };
        at += len;
    }
    found
}

/// The length of the literal that begins at `at`, if there is one.
fn literal(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let in_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let raw = rest.strip_prefix('r').filter(|_| !in_word || text[..at].ends_with('b'));
    if let Some(hashes) = raw.map(|raw| raw.len() - raw.trim_start_matches('#').len()) {
        let end = format!("\"{}", "#".repeat(hashes));
        if let Some(body) = rest[1 + hashes..].strip_prefix('"') {
            return Some(2 + hashes + body.find(&end).map_or(body.len(), |at| at + end.len()));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    // A lifetime is not a literal.
    let body = rest.strip_prefix('\'')?;
    let closed = body.chars().nth(1) == Some('\'');
    (body.starts_with('\\') || closed).then(|| quoted(rest, '\''))
}

/// The length of a literal in quotes with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Comments of shell, Makefiles and settings: from a `#` that begins a word and is not quoted.
fn comments_of_hash(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let (mut quote, mut before) = (None, ' ');
        for (offset, c) in line.char_indices() {
            match c {
                '#' if quote.is_none() && before.is_whitespace() => {
                    found.push(at + offset..at + line.trim_end_matches('\n').len());
                    break;
                }
                '"' | '\'' if quote.is_none() && before != '\\' => quote = Some(c),
                c if quote == Some(c) && before != '\\' => quote = None,
                _ => {}
            }
            before = c;
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> Vec<(usize, String)> {
        passages(path, text).into_iter().map(|p| (p.line, p.text)).collect()
    }

    #[test]
    fn comments_are_told_from_literals() {
        let text = "//! One\n//! two.\n\nfn f<'a>() {\n\
            \x20   g(\"// no\", '\"', r#\"/* \" no\"#); // yes\n}\n";
        assert_eq!(said("a.rs", text), [(1, "One\ntwo.".into()), (5, "yes".into())]);
        let code = code("a.rs", text);
        assert!(code.contains("// no") && !code.contains("yes") && code.len() == text.len());
        assert_eq!(
            said("a.rs", "let a = '\\''; // a\nlet b = b'\\\\'; // b"),
            [(1, "a\nb".into())]
        );
    }

    #[test]
    fn block_comments_are_one_passage() {
        assert_eq!(
            said("a.c", "int i;\n/*\n * One\n * two.\n */\n"),
            [(2, "\nOne\ntwo.\n".into())]
        );
    }

    #[test]
    fn hashes_in_words_and_quotes_are_no_comments() {
        let text = "# One\n# two\necho \"# no\" ${a#b} $# # three\n";
        assert_eq!(said("a.sh", text), [(1, "One\ntwo\nthree".into())]);
    }

    #[test]
    fn lines_are_counted() {
        let passages = passages("a.rs", "\n\n// a\n// b\n// c");
        assert_eq!([0, 2, 4].map(|at| passages[0].line_at(at)), [3, 4, 5]);
    }
}
