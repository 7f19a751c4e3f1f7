//! The fenced blocks of a Markdown page.

/// What the info string of a block requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sh run`
    Run,
    /// `sh background`
    Background,
    /// `sh`, `sh setup`
    Skipped,
    /// Any other, such as `text`, `json`, or none.
    Text,
}

impl Kind {
    fn of(info: &str) -> Option<Self> {
        match info {
            "sh run" => Some(Self::Run),
            "sh background" => Some(Self::Background),
            "sh" | "sh setup" => Some(Self::Skipped),
            _ => (!info.starts_with("sh ")).then_some(Self::Text),
        }
    }

    pub(super) fn is_run(self) -> bool {
        matches!(self, Self::Run | Self::Background)
    }
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Line of the opening fence, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Whether only blank lines separate it from the block before.
    pub(super) adjacent: bool,
}

/// The blocks of `text`, which is the file `page`.
pub(super) fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut adjacent = false;
    let mut lines = (1..).zip(text.lines());
    while let Some((line, opening)) = lines.next() {
        let Some(Fence { indent, ticks, info }) = Fence::of(opening) else {
            adjacent &= opening.trim().is_empty();
            continue;
        };
        let kind = Kind::of(info).unwrap_or_else(|| {
            panic!("{page}:{line}: \"{info}\" is no kind of block; write sh, or sh with run, background or setup")
        });
        let mut text = String::new();
        loop {
            let (_, content) = lines
                .next()
                .unwrap_or_else(|| panic!("{page}:{line}: the block has no closing fence"));
            if Fence::of(content).is_some_and(|fence| fence.ticks >= ticks && fence.info.is_empty())
            {
                break;
            }
            let spaces = content.len() - content.trim_start_matches(' ').len();
            text.push_str(&content[spaces.min(indent)..]);
            text.push('\n');
        }
        blocks.push(Block { kind, line, text, adjacent });
        adjacent = true;
    }
    blocks
}

/// A line that opens or closes a block.
struct Fence<'a> {
    /// Number of spaces before it.
    indent: usize,
    /// Number of backticks, at least 3.
    ticks: usize,
    info: &'a str,
}

impl<'a> Fence<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let fence = line.trim_start_matches(' ');
        let info = fence.trim_start_matches('`');
        let (indent, ticks) = (line.len() - fence.len(), fence.len() - info.len());
        (ticks >= 3 && !info.contains('`')).then(|| Self { indent, ticks, info: info.trim() })
    }
}

#[test]
fn a_page_is_read_block_by_block() {
    let page = "a\n```sh run\nls\n```\n\n```text\nx\n```\nb\n```sh setup\ny\n```\n  ```sh\n    z\n  ```\n\
                ````\n```\n````\n";
    let blocks = blocks("page.md", page);
    let seen: Vec<_> = blocks.iter().map(|b| (b.kind, b.line, &*b.text, b.adjacent)).collect();
    assert_eq!(
        seen,
        [
            (Kind::Run, 2, "ls\n", false),
            (Kind::Text, 6, "x\n", true),
            (Kind::Skipped, 10, "y\n", false),
            (Kind::Skipped, 13, "  z\n", true),
            (Kind::Text, 16, "```\n", true),
        ]
    );
}

#[test]
fn unknown_kind_is_rejected() {
    assert_eq!(Kind::of("sh runn"), None);
}
