//! `view(model, frame)`: draws the model. Reads nothing else and changes nothing.

use crate::{
    model::{Model, Pane, Screen},
    screens,
    theme::{Role, Theme},
};
use fafnir_proto::v1::Side;
use ratatui::{Frame, buffer::Buffer, layout::Rect, style::Style};

/// The smallest window that shows the trading screen.
pub const SIZE_MIN: (u16, u16) = (60, 16);
/// Columns inside the ladder's frame, wide and narrow.
const LADDER_WIDE: u16 = 52;
const LADDER_NARROW: u16 = 43;
/// Columns inside the watchlist's frame; wider windows give it room for small charts.
const WATCH: u16 = 24;
const WATCH_WIDE: u16 = 34;
/// A pane beside the ladder needs this many columns inside.
const PANE_MIN: u16 = 22;
/// From this width on there are three columns.
const THREE_COLUMNS: u16 = 110;
/// From this height on chart and tape share the right column.
const SPLIT_HEIGHT: u16 = 30;
/// Lines of the ladder that are not price rows: headings, spread, pointer to orders out of sight.
const LADDER_EXTRA: u16 = 3;

/// A column of the ladder that takes clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// What the book holds: an order may be placed here.
    Book(Side),
    /// The user's own orders: they are cancelled and moved here, and none is placed.
    Own(Side),
}

/// Where everything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    pub too_small: bool,
    pub header: Rect,
    /// The line above the columns, with their titles.
    pub titles: Rect,
    pub watch: Option<Rect>,
    pub ladder: Rect,
    pub chart: Option<Rect>,
    /// The line between chart and tape.
    pub split: Option<Rect>,
    pub tape: Option<Rect>,
    /// The line with the tabs.
    pub tabs: Rect,
    pub lower: Rect,
    pub ticket: Rect,
    pub message: Rect,
    pub hints: Rect,
}

/// Divides a window. Fields that have no room are left out whole: first the watchlist, then the chart, then the tape.
pub fn layout(size: (u16, u16), pane: Pane) -> Layout {
    let (width, height) = size;
    let row = |y: u16| Rect::new(0, y, width, 1);
    if width < SIZE_MIN.0 || height < SIZE_MIN.1 {
        return Layout { too_small: true, header: Rect::new(0, 0, width, height), ..Layout::default() };
    }
    let lower_height = match height {
        0..20 => 2,
        20..30 => 3,
        30..36 => 6,
        36..50 => 8,
        _ => 12,
    };
    let main = Rect::new(0, 2, width, height - lower_height - 6);
    let tabs_y = main.bottom();
    let mut layout = Layout {
        header: row(0),
        titles: row(1),
        tabs: row(tabs_y),
        lower: Rect::new(1, tabs_y + 1, width - 2, lower_height),
        ticket: row(height - 3),
        message: row(height - 2),
        hints: row(height - 1),
        ..Layout::default()
    };
    let column = |x: u16, width: u16| Rect::new(x, main.y, width, main.height);
    if width >= THREE_COLUMNS {
        let watch = if width >= 140 { WATCH_WIDE } else { WATCH };
        layout.watch = Some(column(1, watch));
        let spare = width - watch - 4;
        let ladder = LADDER_WIDE.min(spare.saturating_sub(32));
        layout.ladder = column(watch + 2, ladder);
        let right = column(watch + ladder + 3, width - watch - ladder - 4);
        if height >= SPLIT_HEIGHT {
            let upper = right.height / 2;
            layout.chart = Some(Rect { height: upper, ..right });
            layout.split = Some(Rect { y: right.y + upper, height: 1, ..right });
            layout.tape = Some(Rect { y: right.y + upper + 1, height: right.height - upper - 1, ..right });
        } else if pane == Pane::Chart {
            layout.chart = Some(right);
        } else {
            layout.tape = Some(right);
        }
        return layout;
    }
    let beside = width.saturating_sub(LADDER_NARROW + 3);
    if beside < PANE_MIN {
        layout.ladder = column(1, width - 2);
        return layout;
    }
    let ladder = if beside >= 50 { LADDER_WIDE } else { LADDER_NARROW };
    layout.ladder = column(1, ladder);
    let right = column(ladder + 2, width - ladder - 3);
    match pane {
        Pane::Tape => layout.tape = Some(right),
        Pane::Chart => layout.chart = Some(right),
        Pane::Watch => layout.watch = Some(right),
    }
    layout
}

impl Layout {
    /// Price rows on the ladder.
    pub fn ladder_rows(&self) -> usize {
        usize::from(self.ladder.height.saturating_sub(LADDER_EXTRA))
    }

    /// The ladder's price rows as an area.
    pub fn ladder_body(&self) -> Rect {
        let area = self.ladder;
        Rect { y: area.y + 2, height: area.height.saturating_sub(LADDER_EXTRA), ..area }
    }

    /// The price row under a point, from the top.
    pub fn ladder_line(&self, x: u16, y: u16) -> Option<usize> {
        let body = self.ladder_body();
        body.contains((x, y).into()).then(|| usize::from(y - body.y))
    }

    /// What of the ladder is under a column of the window.
    pub fn ladder_column(&self, x: u16) -> Option<Column> {
        let columns = screens::ladder::Columns::new(self.ladder);
        [
            (columns.bid, Column::Book(Side::Buy)),
            (columns.ask, Column::Book(Side::Sell)),
            (columns.my_bid, Column::Own(Side::Buy)),
            (columns.my_ask, Column::Own(Side::Sell)),
        ]
        .into_iter()
        .find_map(|((from, width), column)| (from..from + width).contains(&x).then_some(column))
    }

    /// The line of the watchlist under a point.
    pub fn watch_line(&self, x: u16, y: u16) -> Option<usize> {
        let area = self.watch.filter(|a| a.contains((x, y).into()))?;
        Some(usize::from(y - area.y))
    }
}

/// Draws everything.
pub fn view(model: &Model, frame: &mut Frame) {
    let area = frame.area();
    let layout = layout((area.width, area.height), model.pane);
    let mut pen = Pen::new(frame.buffer_mut(), model.theme);
    match model.screen {
        Screen::SignIn => screens::sign_in::draw(model, &mut pen, area),
        Screen::Trading if layout.too_small => screens::small::draw(model, &mut pen, area),
        Screen::Trading => screens::trading(model, &layout, &mut pen),
    }
}

/// Writes cleaned text into a buffer, never outside it.
#[derive(Debug)]
pub struct Pen<'a> {
    buffer: &'a mut Buffer,
    pub theme: Theme,
}

impl<'a> Pen<'a> {
    pub fn new(buffer: &'a mut Buffer, theme: Theme) -> Self {
        Self { buffer, theme }
    }

    pub fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    /// Writes at most `columns` of a text; returns the column after it.
    pub fn text(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
            return x;
        }
        let text = crate::text::clean(text);
        // A style here replaces what was drawn before, it is not laid over it.
        let style = Style::reset().patch(style);
        if self.theme.ascii && !text.is_ascii() {
            let plain: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
            return self.buffer.set_stringn(x, y, &plain, usize::from(columns), style).0;
        }
        self.buffer.set_stringn(x, y, &text, usize::from(columns), style).0
    }

    pub fn role(&mut self, x: u16, y: u16, columns: u16, text: &str, role: Role) -> u16 {
        let style = self.style(role);
        self.text(x, y, columns, text, style)
    }

    /// Writes a number against the right edge of a cell: whole, or the mark for "does not fit".
    pub fn right(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) {
        let text = crate::text::number(text, usize::from(columns), self.theme.glyphs().ellipsis);
        let pad = columns.saturating_sub(crate::text::width(text) as u16);
        self.text(x + pad, y, columns - pad, text, style);
    }

    /// Writes words, shortened with a mark when they are too long.
    pub fn words(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) -> u16 {
        let text = crate::text::clean(text);
        let short = crate::text::shorten(&text, usize::from(columns), self.theme.glyphs().ellipsis);
        self.text(x, y, columns, &short, style)
    }

    pub fn repeat(&mut self, x: u16, y: u16, columns: u16, glyph: &str, style: Style) {
        for at in x..x.saturating_add(columns) {
            self.text(at, y, 1, glyph, style);
        }
    }

    /// Sets the style of an area and keeps its text.
    pub fn paint(&mut self, area: Rect, style: Style) {
        let area = area.intersection(self.buffer.area);
        self.buffer.set_style(area, style);
    }

    /// Empties an area.
    pub fn clear(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buffer[(x, y)].reset();
            }
        }
    }

    /// A box with a title; returns the area inside.
    pub fn boxed(&mut self, area: Rect, title: &str) -> Rect {
        let area = area.intersection(self.buffer.area);
        self.clear(area);
        if area.width < 2 || area.height < 2 {
            return Rect { width: 0, height: 0, ..area };
        }
        let glyphs = self.theme.glyphs();
        let style = self.style(Role::Frame);
        let [top_left, top_right, _, _, _, bottom_left, bottom_right, _] = glyphs.corners;
        let (right, bottom) = (area.right() - 1, area.bottom() - 1);
        self.repeat(area.x, area.y, area.width, glyphs.horizontal, style);
        self.repeat(area.x, bottom, area.width, glyphs.horizontal, style);
        for y in area.y..=bottom {
            self.text(area.x, y, 1, glyphs.vertical, style);
            self.text(right, y, 1, glyphs.vertical, style);
        }
        for (x, y, glyph) in [
            (area.x, area.y, top_left),
            (right, area.y, top_right),
            (area.x, bottom, bottom_left),
            (right, bottom, bottom_right),
        ] {
            self.text(x, y, 1, glyph, style);
        }
        let title_style = self.style(Role::Title);
        let room = area.width.saturating_sub(4);
        self.words(area.x + 2, area.y, room, &format!(" {title} "), title_style);
        Rect::new(area.x + 1, area.y + 1, area.width - 2, area.height - 2)
    }
}
