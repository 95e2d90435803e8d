//! How things look: a role for every kind of thing, colours for every role, glyphs with an ASCII twin.
//!
//! Meaning never rests on hue alone: side shows by column, letter and arrow first. Nothing blinks.

use ratatui::style::{Color, Modifier, Style};

/// Which colours mean buy and sell, up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Palette {
    /// Buy and up blue, sell and down orange: readable with every common colour vision.
    #[default]
    BlueOrange,
    /// Buy and up green, sell and down red.
    GreenRed,
    /// Buy and up red, sell and down green (East Asian convention).
    RedUp,
}

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// No colour: bold, reverse and underline only (`NO_COLOR`).
    Mono,
    /// The sixteen ANSI colours.
    Ansi16,
    /// The 256-colour cube.
    #[default]
    Ansi256,
}

/// What a piece of the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Text,
    Dim,
    Frame,
    Title,
    Bid,
    Ask,
    Up,
    Down,
    Own,
    Cursor,
    Last,
    Good,
    Bad,
    Warn,
    Banner,
    Key,
    Field,
}

/// The characters that are not letters or digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyphs {
    pub horizontal: &'static str,
    pub vertical: &'static str,
    /// Corners and joins: top left, top right, left join, right join, top join, bottom left, bottom right, bottom join.
    pub corners: [&'static str; 8],
    pub up: &'static str,
    pub down: &'static str,
    pub link_up: &'static str,
    pub link_connecting: &'static str,
    pub link_down: &'static str,
    pub selected: &'static str,
    pub own_bid: &'static str,
    pub own_ask: &'static str,
    pub ellipsis: &'static str,
    pub ok: &'static str,
    pub refused: &'static str,
    pub mine: &'static str,
    pub note: &'static str,
    pub last: &'static str,
    pub above: &'static str,
    pub below: &'static str,
    pub mask: &'static str,
    pub separator: &'static str,
    pub at_least: &'static str,
    pub at_most: &'static str,
    /// Bars from one eighth to full.
    pub bar: &'static [&'static str],
    pub bar_soft: &'static str,
    pub spark: &'static [&'static str],
    pub candle_up: &'static str,
    pub candle_down: &'static str,
    pub candle_wick: &'static str,
    pub candle_top: &'static str,
    pub candle_bottom: &'static str,
    pub choice: [&'static str; 2],
}

const UNICODE: Glyphs = Glyphs {
    horizontal: "─",
    vertical: "│",
    corners: ["┌", "┐", "├", "┤", "┬", "└", "┘", "┴"],
    up: "▲",
    down: "▼",
    link_up: "●",
    link_connecting: "◐",
    link_down: "○",
    selected: "▸",
    own_bid: "▸",
    own_ask: "◂",
    ellipsis: "…",
    ok: "✓",
    refused: "✗",
    mine: "●",
    note: "·",
    last: "◄",
    above: "▴",
    below: "▾",
    mask: "•",
    separator: "│",
    at_least: "≥",
    at_most: "≤",
    bar: &["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"],
    bar_soft: "░",
    spark: &["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    candle_up: "█",
    candle_down: "█",
    candle_wick: "│",
    candle_top: "▀",
    candle_bottom: "▄",
    choice: ["◂", "▸"],
};

const ASCII: Glyphs = Glyphs {
    horizontal: "-",
    vertical: "|",
    corners: ["+", "+", "+", "+", "+", "+", "+", "+"],
    up: "^",
    down: "v",
    link_up: "up",
    link_connecting: "...",
    link_down: "DOWN",
    selected: ">",
    own_bid: ">",
    own_ask: "<",
    ellipsis: "~",
    ok: "ok",
    refused: "NO",
    mine: "*",
    note: "-",
    last: "<",
    above: "^",
    below: "v",
    mask: "*",
    separator: "|",
    at_least: ">=",
    at_most: "<=",
    bar: &["#"],
    bar_soft: "-",
    spark: &["_", ".", "-", "=", "^"],
    candle_up: "O",
    candle_down: "X",
    candle_wick: "|",
    candle_top: "",
    candle_bottom: "",
    choice: ["<", ">"],
};

/// Colours and glyphs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Theme {
    pub palette: Palette,
    pub depth: Depth,
    pub ascii: bool,
}

impl Theme {
    pub fn glyphs(&self) -> &'static Glyphs {
        if self.ascii { &ASCII } else { &UNICODE }
    }

    /// The style of a role in this theme.
    pub fn style(&self, role: Role) -> Style {
        let style = Style::new();
        let (buy, sell) = match (self.palette, self.depth) {
            (_, Depth::Mono) => return mono(role),
            (Palette::BlueOrange, Depth::Ansi256) => (Color::Indexed(75), Color::Indexed(208)),
            (Palette::BlueOrange, Depth::Ansi16) => (Color::LightBlue, Color::Yellow),
            (Palette::GreenRed, _) => (Color::Green, Color::Red),
            (Palette::RedUp, _) => (Color::Red, Color::Green),
        };
        let (dim, frame) = match self.depth {
            Depth::Ansi256 => (Color::Indexed(246), Color::Indexed(240)),
            _ => (Color::Gray, Color::DarkGray),
        };
        match role {
            Role::Text => style,
            Role::Dim => style.fg(dim),
            Role::Frame => style.fg(frame),
            Role::Title | Role::Last | Role::Key => style.add_modifier(Modifier::BOLD),
            Role::Bid | Role::Up => style.fg(buy),
            Role::Ask | Role::Down => style.fg(sell),
            Role::Own => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Role::Cursor => style.add_modifier(Modifier::REVERSED),
            Role::Good => style.fg(Color::Cyan),
            Role::Bad => style.fg(Color::LightRed).add_modifier(Modifier::BOLD),
            Role::Warn => style.fg(Color::LightYellow).add_modifier(Modifier::BOLD),
            Role::Banner => style.fg(Color::LightYellow).add_modifier(Modifier::BOLD | Modifier::REVERSED),
            Role::Field => style.add_modifier(Modifier::UNDERLINED),
        }
    }
}

fn mono(role: Role) -> Style {
    let style = Style::new();
    match role {
        Role::Text | Role::Dim | Role::Frame | Role::Bid | Role::Ask | Role::Up | Role::Down | Role::Good => {
            style
        }
        Role::Title | Role::Last | Role::Bad | Role::Warn | Role::Key => style.add_modifier(Modifier::BOLD),
        Role::Own => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        Role::Cursor => style.add_modifier(Modifier::REVERSED),
        Role::Banner => style.add_modifier(Modifier::BOLD | Modifier::REVERSED),
        Role::Field => style.add_modifier(Modifier::UNDERLINED),
    }
}
