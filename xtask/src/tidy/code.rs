//! Rust source with its comments, strings and tests blanked out, line by line, so that rules about code see code only.

/// The source with every comment, string and character literal replaced by spaces; lines stay where they are.
///
/// A light lexer, not a parser: it knows nested comments, raw strings, escapes, and lifetimes from character literals.
pub(crate) fn without_text(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The same with the bodies of items marked `#[cfg(test)]` blanked too.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let rest = &out[start..];
        let body = rest.find(['{', ';']).map_or(rest.len(), |open| open + body_length(&rest[open..]));
        let blank: String = rest[..body].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..start + body, &blank);
    }
    out
}

/// The length of a text from its opening brace through the brace that closes it, or of a single `;`.
fn body_length(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied();
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], next(1)) {
        ('/', Some('/')) => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        ('/', Some('*')) => comment_end(chars, at),
        ('"', _) => string_end(chars, at + 1),
        ('r', Some('"' | '#')) if !after_word || chars[at - 1] == 'b' => raw_string_end(chars, at),
        ('\'', Some('\\')) => quote_end(chars, at + 3),
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of `r"..."` or `r#"..."#`; `start` itself for a raw identifier such as `r#type`.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (open + 1..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
}

fn quote_end(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|&at| chars[at] == '\'').map_or(chars.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, left: &str) {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let code = without_text(source);
        assert_eq!(squeezed(&code), squeezed(left));
        assert_eq!(code.lines().count(), source.lines().count(), "lines stay where they are");
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        check("a(); // b()\nc();", "a(); c();");
        check("a /* b /* c */ d */ e", "a e");
        check("f(\"x \\\" y\\\\\", 'z', '\\'', '\\u{7d}')", "f( , , , )");
        check("f(r\"a\\\", r#\"b\"c\"#, br#\"d\"#, b\"e\")", "f( , , b , b )");
        check("\"one\ntwo\" three", " three");
        check("// it's\nlet x: &'a str = y;", "let x: &'a str = y;");
        check("let r#type = error\"\";", "let r#type = error ;");
        check("an unfinished \"string", "an unfinished");
        check("an unfinished /* comment", "an unfinished");
    }

    #[test]
    fn the_bodies_of_tests_are_blanked() {
        let code =
            "a();\n#[cfg(test)]\nmod tests {\n fn b() { c(); }\n}\nd();\n#[cfg(test)]\nmod more;\ne();";
        let left: String = without_tests(code).split_whitespace().collect();
        assert_eq!(left, "a();d();e();");
    }
}
