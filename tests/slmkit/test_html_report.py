"""Report pages hold what they are given, escaped, and nothing from outside."""

from slmkit import html_report


def test_everything_from_data_is_escaped():
    made = html_report.page(
        "<b>", html_report.table(["<i>"], [["<script>", 1234, 0.5]]), html_report.badge("<u>", "bad")
    )
    assert all(tag not in made for tag in ("<b>", "<i>", "<script>", "<u>"))
    assert '<td class="number">1,234</td><td class="number">0.5</td>' in made
    assert "http" not in made


def test_a_head_stands_over_its_numbers():
    made = html_report.table(
        ["name", "rows", "speed", "mixed"], [["a", 1, "none", 2], ["b", 2, 0.5, "text"], ["c", 3, "", ""]]
    )
    assert made.split("</tr>")[0] == (
        '<table><tr><th>name</th><th class="number">rows</th><th class="number">speed</th><th>mixed</th>'
    )


def test_a_table_without_rows_says_so():
    assert html_report.table(["a"], []) == "<p>none</p>"


def test_a_chart_is_inline_and_the_same_each_time():
    from matplotlib.figure import Figure

    def draw():
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        return html_report.chart(figure, 'a "line"')

    assert draw().startswith('<p><img alt="a &quot;line&quot;" src="data:image/svg+xml;base64,')


def test_a_small_number_is_not_shown_as_nothing():
    shown = html_report.table(["loss"], [[0.0], [0.00004321], [-0.0004], [0.0005], [1.5]])
    assert [cell.split("<")[0] for cell in shown.split('<td class="number">')[1:]] == [
        *("0", "4.3e-05", "-0.0004"),
        *("0.001", "1.5"),
    ]
