from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.arithmetic import solution_text, word_problems, wrong_solution
from guerdon.core.segments import step_lines
from guerdon.rewards.text.segment import SegmentReward
from guerdon.rewards.text.segment_judges import calculation_judge, news_judge


def steps(text: str) -> list[str]:
    return [span.of(text) for span in step_lines(text)]


def test_every_step_of_a_right_solution_is_right_and_the_first_wrong_one_is_found():
    for place, problem in enumerate(word_problems(60, 5)):
        right = steps(solution_text(problem.solution))
        assert calculation_judge([problem.question], [right])[0] == [1.0] * len(right)
        wrong = wrong_solution(problem, place, fault="slip")
        said = calculation_judge([[{"role": "user", "content": problem.question}]], [steps(solution_text(wrong))])[0]
        assert said.index(0.0) == wrong.first_error and sum(said) == len(said) - 1


def test_numbers_that_nobody_gave_are_no_help():
    said = calculation_judge(["There are 3 and 4."], [["3 * 4 = 12.", "12 + 9 = 21", "No sum.", "12 - 3 = 9"]])
    assert said == [[1.0, 0.0, 1.0, 1.0]]
    assert calculation_judge(None, [["1,000 / 8 = 125", "1 / 0 = 0", "2 x 2 = $4.00", "2 × 3 = 5"]])[0] == [1, 0, 1, 0]


def test_what_is_said_again_is_no_news():
    said = news_judge(None, [["It is so.", "it is  SO!", "It was so.", "..."], []])
    assert said == [[1.0, 0.0, 1.0, 0.0], []]
    looping = "Step ready.\n" * 50
    assert SegmentReward(news_judge, "step", right=0.0, wrong=-0.3)(["q"], [looping])[0] < -14


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789+-*/=., x", max_size=80))
def test_any_text_is_judged(text):
    said = calculation_judge([text], [[text, text]])[0] + news_judge([text], [[text, text]])[0]
    assert all(one in (0.0, 1.0) for one in said)
