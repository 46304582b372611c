//! The screen of `lockstep top`: what is shown of a view, and what keys do. Draws into any
//! ratatui frame, so that tests need no terminal.

use super::view::{Pane, Row, View};
use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{self, Paragraph, Table};

/// Lines of the head: the engine, the sums, and an empty one.
const HEAD: u16 = 3;
/// Lines of the foot: the keys.
const FOOT: u16 = 1;
/// Lines of a pane above its rows: its title, and its columns' heads.
const TITLE: u16 = 2;
/// Lines that a pane takes beside its rows where another one follows: an empty one as well.
const FRAME: u16 = TITLE + 1;
/// Rows of a pane that is not the chosen one, at most.
const GLIMPSE: u16 = 4;
/// Columns between two columns.
const GAP: u16 = 2;

const KEYS: &str = "q quit  Tab pane  ←→ sort by  r reverse  ↑↓ scroll  p pause";

/// What the user wants after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To see more.
    GoOn,
    /// To end.
    End,
}

/// How a pane is looked at.
#[derive(Debug, Clone, Copy)]
struct Look {
    sort: usize,
    reversed: bool,
    scroll: usize,
}

/// What the screen shows and how.
#[derive(Debug)]
pub struct Screen {
    view: Option<View>,
    /// Why there is no newer view.
    failure: Option<String>,
    paused: bool,
    /// The chosen pane, by its place in [`Pane::ALL`].
    chosen: usize,
    looks: [Look; Pane::ALL.len()],
}

impl Default for Screen {
    fn default() -> Self {
        Screen {
            view: None,
            failure: None,
            paused: false,
            chosen: 0,
            looks: Pane::ALL.map(|pane| Look {
                sort: pane.first_sort(),
                reversed: false,
                scroll: 0,
            }),
        }
    }
}

impl Screen {
    /// Takes a newer view, unless the user looks at an older one.
    pub fn show(&mut self, view: View) {
        self.failure = None;
        if !self.paused {
            self.view = Some(view);
        }
    }

    /// Says why there is no newer view.
    pub fn fail(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Does what an event asks for.
    pub fn react(&mut self, event: &Event) -> Wish {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press | KeyEventKind::Repeat,
            ..
        }) = event
        else {
            // A new size: the next drawing has it.
            return Wish::GoOn;
        };
        let columns = Pane::ALL[self.chosen].columns().len();
        let panes = Pane::ALL.len();
        let look = &mut self.looks[self.chosen];
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
            // In raw mode it is a key and no signal.
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Wish::End,
            KeyCode::Tab => self.chosen = (self.chosen + 1) % panes,
            KeyCode::BackTab => self.chosen = (self.chosen + panes - 1) % panes,
            KeyCode::Char(digit @ '1'..='4') => self.chosen = *digit as usize - '1' as usize,
            KeyCode::Right => look.sort = (look.sort + 1) % columns,
            KeyCode::Left => look.sort = (look.sort + columns - 1) % columns,
            KeyCode::Char('r') => look.reversed = !look.reversed,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Down => look.scroll = look.scroll.saturating_add(1),
            KeyCode::Up => look.scroll = look.scroll.saturating_sub(1),
            KeyCode::PageDown => look.scroll = look.scroll.saturating_add(10),
            KeyCode::PageUp => look.scroll = look.scroll.saturating_sub(10),
            KeyCode::Home => look.scroll = 0,
            _ => {}
        }
        Wish::GoOn
    }

    /// Draws it: all panes where there is room, with most of it for the chosen one; else that
    /// one alone. On a terminal of a few lines what is left are the sums.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(HEAD),
            Constraint::Fill(1),
            Constraint::Length(FOOT),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(Paragraph::new(Line::from(KEYS).style(dim())), foot);
        let Some(view) = self.view.take() else {
            return;
        };
        let rows: Vec<Vec<Row>> = Pane::ALL
            .iter()
            .zip(&self.looks)
            .map(|(&pane, look)| view.rows(pane, look.sort, look.reversed))
            .collect();
        let heights = heights(body.height, self.chosen, &rows);
        let is_alone = heights.iter().filter(|height| **height > 0).count() == 1;
        let areas = Layout::vertical(heights.map(Constraint::Length)).split(body);
        for (at, rows) in rows.into_iter().enumerate() {
            self.pane(frame, areas[at], at, rows, is_alone);
        }
        self.view = Some(view);
    }

    fn head(&self) -> Paragraph<'static> {
        let Some(view) = &self.view else {
            return Paragraph::new("lockstep-engine has not answered yet");
        };
        let mut first = vec![Span::raw(view.engine_line())];
        if self.paused {
            first.push(Span::styled("  paused", alert()));
        }
        let second = match &self.failure {
            Some(why) => Line::from(why.clone()).style(alert()),
            None => Line::from(view.total_line()).style(Style::new().add_modifier(Modifier::BOLD)),
        };
        Paragraph::new(Text::from(vec![Line::from(first), second]))
    }

    /// A pane: its title, the columns that there is room for, and the rows from where the user
    /// has scrolled to.
    fn pane(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        at: usize,
        rows: Vec<Row>,
        is_alone: bool,
    ) {
        if area.height < TITLE {
            return;
        }
        let (pane, look) = (Pane::ALL[at], &mut self.looks[at]);
        let room = area.height - TITLE;
        // The empty line between panes is there for rows where no other pane is.
        let spare = usize::from(!is_alone);
        let shown = usize::from(room).saturating_sub(spare).min(rows.len());
        // Rows may have gone since the user scrolled.
        look.scroll = look.scroll.min(rows.len().saturating_sub(shown));
        let style = if at == self.chosen { chosen() } else { dim() };
        let title = match rows.len() {
            all if all > shown => format!(
                "{} {}-{} of {all}",
                pane.title(),
                look.scroll + 1,
                look.scroll + shown
            ),
            all => format!("{} {all}", pane.title()),
        };
        let [title_area, table_area] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        frame.render_widget(
            Line::from(format!("{} {title}", at + 1)).style(style),
            title_area,
        );
        frame.render_widget(
            table(pane, *look, &rows, shown, table_area.width),
            table_area,
        );
    }
}

/// The heights of all panes.
fn heights(room: u16, chosen: usize, rows: &[Vec<Row>]) -> [u16; Pane::ALL.len()] {
    let wanted = |rows: &Vec<Row>| FRAME + u16::try_from(rows.len()).unwrap_or(u16::MAX - FRAME);
    let glimpses: [u16; Pane::ALL.len()] = std::array::from_fn(|at| match at == chosen {
        true => 0,
        false => wanted(&rows[at]).min(FRAME + GLIMPSE),
    });
    let others: u16 = glimpses.iter().sum();
    let needed = wanted(&rows[chosen]).min(FRAME + 2 * GLIMPSE);
    if others + needed > room {
        return std::array::from_fn(|at| if at == chosen { room } else { 0 });
    }
    // What room is left goes to the chosen one, as far as it has rows, and then to the others.
    let mut left = room - others;
    let mut heights = glimpses;
    heights[chosen] = wanted(&rows[chosen]).min(left);
    left -= heights[chosen];
    for (height, rows) in heights.iter_mut().zip(rows) {
        let more = wanted(rows).saturating_sub(*height).min(left);
        *height += more;
        left -= more;
    }
    heights
}

/// The columns that fit, from the left, each as wide as its widest cell. The last one that does
/// not fit as a whole is cut where it is text.
fn table(pane: Pane, look: Look, rows: &[Row], shown: usize, width: u16) -> Table<'static> {
    let columns = pane.columns();
    let mut widths = Vec::new();
    let mut left = width;
    for (at, name) in columns.iter().enumerate() {
        let cells = rows.iter().map(|row| row.cells[at].text.chars().count());
        let head = name.trim_start_matches('>').chars().count() + 1;
        let wanted = u16::try_from(cells.max().unwrap_or(0).max(head)).unwrap_or(u16::MAX);
        let is_text = !name.starts_with('>');
        if wanted > left && (!is_text || left < head as u16) {
            break;
        }
        widths.push(wanted.min(left));
        left = left.saturating_sub(wanted.saturating_add(GAP));
    }
    let align = |at: usize| match columns[at].starts_with('>') {
        true => Alignment::Right,
        false => Alignment::Left,
    };
    let head = (0..widths.len()).map(|at| {
        let arrow = match (at == look.sort, pane.falls(at) != look.reversed) {
            (false, _) => "",
            (true, true) => "▾",
            (true, false) => "▴",
        };
        let name = format!("{}{arrow}", columns[at].trim_start_matches('>'));
        widgets::Cell::from(Text::from(name).alignment(align(at)))
    });
    let body = rows.iter().skip(look.scroll).take(shown).map(|row| {
        let cells = row.cells.iter().take(widths.len()).enumerate();
        let cells = cells
            .map(|(at, c)| widgets::Cell::from(Text::from(c.text.clone()).alignment(align(at))));
        let style = if row.alert { alert() } else { Style::new() };
        widgets::Row::new(cells).style(style)
    });
    Table::new(body, widths.iter().map(|&w| Constraint::Length(w)))
        .header(widgets::Row::new(head).style(dim()))
        .column_spacing(GAP)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn chosen() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn alert() -> Style {
    Style::new().fg(Color::Red)
}
