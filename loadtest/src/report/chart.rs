//! Line charts as inline SVG: no script, nothing from elsewhere.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
const COLOURS: [&str; 6] = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf"];

/// A line of a chart.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten; what is not above 0 is left out.
    Log,
    /// Shares such as 0.99, by how many nines they have.
    Nines,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What is to the right, and what is up.
    pub axes: (&'static str, &'static str),
    /// Their scales.
    pub scales: (Scale, Scale),
    /// Up to six.
    pub lines: Vec<Line>,
    /// Upright marks, where something was done.
    pub events: Vec<f64>,
}

impl Chart {
    /// As a figure of HTML; nothing if there is nothing to show.
    #[must_use]
    pub fn draw(&self) -> String {
        let mut lines = self.lines.clone();
        for line in &mut lines {
            line.points.retain(|(x, y)| x.is_finite() && y.is_finite() && (self.scales.1 != Scale::Log || *y > 0.0));
        }
        lines.retain(|line| !line.points.is_empty());
        let points = || lines.iter().flat_map(|line| line.points.iter());
        let across = Axis::over(self.scales.0, points().map(|point| point.0));
        let up = Axis::over(self.scales.1, points().map(|point| point.1));
        let (Some(across), Some(up)) = (across, up) else { return String::new() };
        let place = |(x, y): (f64, f64)| {
            let x = LEFT + across.share(x) * (WIDTH - LEFT - RIGHT);
            (x, HEIGHT - BOTTOM - up.share(y) * (HEIGHT - TOP - BOTTOM))
        };
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">",
            escape(&self.title)
        );
        self.grid(&mut svg, (&across, &up), &place);
        for (line, colour) in lines.iter().zip(COLOURS) {
            let path: String = line.points.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
            let _ = write!(
                svg,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"><title>{}</title></polyline>",
                escape(&line.name)
            );
        }
        svg.push_str("</svg><p class=\"legend\">");
        for (line, colour) in lines.iter().zip(COLOURS) {
            let _ = write!(svg, "<span><i style=\"background:{colour}\"></i>{}</span>", escape(&line.name));
        }
        svg.push_str("</p></figure>");
        svg
    }

    fn grid(&self, svg: &mut String, (across, up): (&Axis, &Axis), place: &impl Fn((f64, f64)) -> (f64, f64)) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in up.ticks() {
            let y = place((across.low, tick)).1;
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{right}\" class=\"grid\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                up.label(tick)
            );
        }
        for tick in across.ticks() {
            let x = place((tick, up.low)).0;
            let _ = write!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" class=\"grid\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 15.0,
                across.label(tick)
            );
        }
        for event in &self.events {
            let x = place((*event, up.low)).0;
            let _ = write!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\" class=\"event\"/>");
        }
        let _ = write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", right, HEIGHT - 4.0, self.axes.0);
        let _ = write!(
            svg,
            "<text x=\"12\" y=\"{}\" transform=\"rotate(-90 12 {0})\" text-anchor=\"middle\">{}</text>",
            HEIGHT / 2.0,
            self.axes.1
        );
    }
}

/// One axis: its range, in the values of the points.
#[derive(Debug)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !low.is_finite() {
            return None;
        }
        Some(match scale {
            Scale::Linear => Self { scale, low: low.min(0.0), high: if high > 0.0 { high * 1.05 } else { 1.0 } },
            Scale::Log => Self { scale, low: 10f64.powf(low.log10().floor()), high: 10f64.powf((high * 1.0001).log10().ceil()) },
            Scale::Nines => Self { scale, low, high },
        })
    }

    fn turn(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
            Scale::Nines => -(1.0 - value).max(1e-9).log10(),
        }
    }

    fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.turn(self.low), self.turn(self.high));
        if high > low { ((self.turn(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let raw = (self.high - self.low) / 5.0;
                let power = 10f64.powf(raw.log10().floor());
                let step =
                    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw).unwrap_or(raw);
                (0..12)
                    .map(|n| (self.low / step).ceil() * step + f64::from(n) * step)
                    .take_while(|tick| *tick <= self.high)
                    .collect()
            }
            Scale::Log => {
                let mut ticks = vec![self.low];
                while let Some(next) = ticks.last().map(|last| last * 10.0).filter(|next| *next <= self.high * 1.001) {
                    ticks.push(next);
                }
                ticks
            }
            Scale::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].into_iter().filter(|tick| *tick <= self.high).collect(),
        }
    }

    fn label(&self, tick: f64) -> String {
        if self.scale == Scale::Nines {
            return format!("{}", (tick * 1e7).round() / 1e5) + " %";
        }
        if tick.abs() >= 1000.0 {
            format!("{:.4}k", tick / 1000.0).replace(".0000k", "k").replace("000k", "k")
        } else {
            format!("{}", (tick * 1e4).round() / 1e4)
        }
    }
}

/// Text for HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, up: Scale) -> Chart {
        let lines = vec![Line { name: "a<b".to_owned(), points }];
        Chart { title: "t".to_owned(), axes: ("s", "ms"), scales: (Scale::Linear, up), lines, events: vec![1.0] }
    }

    #[test]
    fn points_lie_inside_and_rise_upwards() {
        let svg = chart(vec![(0.0, 1.0), (1.0, 10.0), (2.0, 100.0)], Scale::Log).draw();
        let path = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let ys: Vec<f64> = path.split_whitespace().map(|point| point.split_once(',').unwrap().1.parse().unwrap()).collect();
        assert!(
            ys.windows(2).all(|pair| pair[0] > pair[1]) && ys.iter().all(|y| (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(y)),
            "{ys:?}"
        );
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(chart(Vec::new(), Scale::Linear).draw(), "");
        assert_eq!(chart(vec![(1.0, 0.0)], Scale::Log).draw(), "");
        assert!(!chart(vec![(1.0, 0.0)], Scale::Linear).draw().contains("NaN"));
    }
}
