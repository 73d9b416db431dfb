"""The style sheet of the report page."""

CSS = """
:root {
  --page: #f6f6f7; --card: #ffffff; --ink: #1f1f23; --soft: #5f5f6b;
  --line: #e2e2e6; --accent: #0072b2; --shade: #f0f0f3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131316; --card: #1c1c21; --ink: #ececf0; --soft: #a3a3ae;
    --line: #303038; --accent: #56b4e9; --shade: #26262c;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; max-width: 1160px; padding: 0 clamp(12px, 3vw, 32px) 64px;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
header { padding: 48px 0 8px; }
h1 { margin: 0; font-size: clamp(26px, 4vw, 38px); line-height: 1.15;
  letter-spacing: -0.02em; }
header p { margin: 10px 0 0; max-width: 70ch; color: var(--soft);
  font-size: 18px; }
nav ol { display: flex; flex-wrap: wrap; gap: 8px; margin: 22px 0 0;
  padding: 0; list-style: none; }
nav a { display: block; padding: 5px 13px; border: 1px solid var(--line);
  border-radius: 999px; background: var(--card); color: var(--ink);
  font-size: 14px; text-decoration: none; }
nav a:hover, nav a:focus-visible { border-color: var(--accent);
  color: var(--accent); }
section { margin-top: 20px; padding: clamp(16px, 2.6vw, 28px);
  border: 1px solid var(--line); border-radius: 14px;
  background: var(--card); scroll-margin-top: 12px; }
h2 { margin: 0 0 10px; font-size: 21px; line-height: 1.25;
  letter-spacing: -0.01em; }
section p { margin: 0 0 12px; max-width: 78ch; }
section > .scroll { margin-bottom: 18px; }
section > :last-child { margin-bottom: 0; }
dl { display: grid; gap: 10px; margin: 14px 0;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
dl div { padding: 12px 15px; border-radius: 10px; background: var(--shade); }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 2px 0 0; font-size: 22px; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 16px 0 22px; }
.row { display: flex; flex-wrap: wrap; gap: 0 28px; align-items: flex-start; }
.row figure:has(.wide) { flex: 1 1 480px; min-width: 0; }
.row figure { max-width: 100%; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; }
img.wide { width: 100%; border-radius: 0; }
@media (max-width: 640px) { /* wide panels scroll rather than shrink */
  figure img { max-width: none; }
  img.wide { width: 640px; }
}
figcaption, caption { color: var(--soft); font-size: 14px; line-height: 1.45; }
figcaption { margin-top: 9px; max-width: 95ch; }
caption { padding-bottom: 8px; text-align: left; }
table { width: 100%; border-collapse: collapse; font-size: 15px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
th { color: var(--soft); font-size: 13px; font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
"""
