//! The table that is printed.

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// For speeds.
    AtLeast(f64),
    /// For times.
    AtMost(f64),
    /// What is only told.
    None,
}

/// Prints each row as soon as it is known.
pub struct Table {
    wrong: Vec<String>,
    short: Vec<String>,
}

impl Table {
    /// Prints the head.
    pub fn begin() -> Self {
        println!("{:<58} {:>14} {:>14} {:>7}  goal", "what", "ours", "reference", "ratio");
        Self { wrong: Vec::new(), short: Vec::new() }
    }

    /// A measured pair in one unit.
    pub fn measured(&mut self, what: &str, unit: &str, (ours, reference): (f64, f64), goal: Goal) {
        let ratio = ours / reference;
        let (text, met) = match goal {
            Goal::AtLeast(least) => (format!(">= {least}"), ratio >= least),
            Goal::AtMost(most) => (format!("<= {most}"), ratio <= most),
            Goal::None => (String::new(), true),
        };
        if !met {
            self.short.push(format!("{what}: {ratio:.2}"));
        }
        let mark = if met { "" } else { "  MISSED" };
        let shown = |value: f64| format!("{} {unit}", digits(value));
        println!("{what:<58} {:>14} {:>14} {ratio:>7.2}  {text}{mark}", shown(ours), shown(reference));
    }

    /// A number of requests and the least possible one. More than that fails the run.
    pub fn requests(&mut self, what: &str, ours: &str, count: u64, least: u64) {
        let ratio = if least == 0 { "-".into() } else { format!("{:.2}", count as f64 / least as f64) };
        let mark = if count == least { "" } else { "  WRONG" };
        println!("{what:<58} {count:>10} req {least:>10} req {ratio:>7}  exact{mark}  {ours}");
        if count != least {
            self.wrong.push(format!("{what}: {count} requests instead of {least}: {ours}"));
        }
    }

    /// What has no goal.
    pub fn told(&mut self, what: &str, text: &str) {
        println!("{what:<58} {text}");
    }

    /// What could not be measured here.
    pub fn left_out(&self, what: &str, why: &str) {
        println!("{what:<58} left out: {why}");
    }

    /// Prints what missed its goal; whether every number of requests is right.
    pub fn end(self) -> bool {
        for short in &self.short {
            println!("missed: {short}");
        }
        for wrong in &self.wrong {
            println!("WRONG: {wrong}");
        }
        self.wrong.is_empty()
    }
}

/// Three digits that say something.
fn digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}
