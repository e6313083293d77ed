import io

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from ntk_utils import (
    DataWarning,
    HeaderWarning,
    RowNumberWarning,
    _random,
    digit_labels,
    digits,
    gaussian,
    read_data,
    scaling,
    separation,
    uniform_sphere,
)
from ntk_utils.data import parallel_pairs


@pytest.mark.parametrize("sample", [uniform_sphere, gaussian])
def test_samples_are_double_precision_rows_that_the_key_determines(sample, key):
    x = sample(key, 7, 3)
    assert x.shape == (7, 3)
    assert x.dtype == jnp.float64
    assert (x == sample(key, n=7, d=3)).all()
    assert (x != sample(jax.random.fold_in(key, 1), 7, 3)).any()


@pytest.mark.parametrize("d", [1, 2, 50])
def test_points_on_the_sphere_have_norm_root_d(d, key):
    x = uniform_sphere(key, 20, d)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), np.sqrt(d), rtol=1e-14)


@pytest.mark.parametrize("sample", [uniform_sphere, gaussian])
def test_samples_are_centred_with_identity_covariance(sample, key):
    n, d = 20_000, 4
    x = np.asarray(sample(key, n, d))
    # entries of x have variance 1, products of two entries at most 2: five standard errors
    np.testing.assert_allclose(x.mean(axis=0), np.zeros(d), rtol=0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(x.T @ x / n, np.eye(d), rtol=0, atol=5 * np.sqrt(2 / n))


def test_samples_of_many_sizes_share_one_compilation_of_the_generator(key):
    _random._draw.clear_cache()
    for n in (2, 30, 400):
        assert gaussian(key, n, 50).shape == uniform_sphere(key, n, 50).shape == (n, 50)
    assert _random._draw._cache_size() == 1
    gaussian(key, 2000, 50)  # too large for the smallest block
    assert _random._draw._cache_size() == 2


@pytest.mark.parametrize("size", [1, 2**16, 2**16 + 1, 2**20, 2**20 + 1, 3 * 2**20, 10**7 + 3])
def test_a_block_holds_all_that_is_asked_for_and_wastes_little_where_that_costs(size):
    most = size * 9 / 8 if size > 2**20 else max(2**16, 4 * size)
    assert size <= _random.block_size(size) <= most


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_numbers_are_those_of_jax_whatever_the_block_that_they_are_cut_from(law, key):
    for shape in ((3, 5), (2**16 + 1,), (1025, 1025)):
        drawn = getattr(_random, law)(key, shape)
        np.testing.assert_array_equal(drawn, getattr(jax.random, law)(key, shape))


def test_gaussian_entries_have_the_fourth_moment_of_a_gaussian(key):
    x = np.asarray(gaussian(key, 20_000, 4))
    assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / x.size)


@pytest.mark.parametrize("n", [4095, 4096, 4097, 8193])
def test_no_number_is_drawn_twice_whatever_the_number_of_samples(n):
    x = gaussian(jax.random.key(0), n, 1)
    assert len(np.unique(x)) == n


def test_digits_lie_on_the_sphere_of_radius_eight():
    x = digits()
    assert x.shape == (1797, 64)
    assert x.dtype == jnp.float64
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 8, rtol=1e-14)


def test_digits_are_centred_on_average():
    # of rows of norm 8, each with mean of the order of one in 64 entries
    assert np.linalg.norm(np.asarray(digits()).mean(axis=0)) < 1


def test_fewer_digits_are_the_first_of_all_digits():
    np.testing.assert_array_equal(digits(10), digits()[:10])


def test_digits_are_the_images_of_scikit_learn_up_to_their_mean_and_scale():
    from sklearn.datasets import load_digits

    images = load_digits().data
    rows, x = images[:5] - images.mean(axis=0), np.asarray(digits(5))
    cosines = (rows * x).sum(axis=1) / np.linalg.norm(rows, axis=1) / 8
    np.testing.assert_allclose(cosines, np.ones(5), rtol=1e-12)


def test_labels_are_those_of_scikit_learn_and_name_the_nearest_digits():
    from sklearn.datasets import load_digits

    labels = digit_labels()
    np.testing.assert_array_equal(labels, load_digits().target)
    np.testing.assert_array_equal(digit_labels(10), labels[:10])
    # row for row: most images are closest to another one of the same digit
    cosines = np.asarray(digits(500) @ digits(500).T) - 100 * np.eye(500)
    assert (labels[:500] == labels[cosines.argmax(axis=1)]).mean() > 0.9


def test_gaussian_data_fulfil_the_scaling_assumption(key):
    np.testing.assert_allclose(scaling(gaussian(key, 500, 100)), [1, 1, 1], rtol=0, atol=0.03)


def test_scaling_averages_a_known_configuration():
    # norms 3 and 5 in dimension 4; the mean is (0, 1), each sample at distance 4 from it
    measured = scaling(np.array([[0.0, -3.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]]))
    np.testing.assert_allclose(measured, [4 / 2, 17 / 4, 16 / 4], rtol=1e-14)
    assert measured._fields == ("norm", "squared_norm", "centred_squared_norm")


def test_a_constant_that_swamps_the_data_breaks_the_third_assumption_alone(key):
    spread_out = uniform_sphere(key, 50, 20)
    shifted = spread_out * 0.05 + 1
    assert scaling(shifted).norm == pytest.approx(1, abs=0.05)
    assert scaling(shifted).squared_norm == pytest.approx(1, abs=0.05)
    assert scaling(shifted).centred_squared_norm < 0.01
    assert scaling(spread_out).centred_squared_norm == pytest.approx(1, abs=0.05)


def test_separation_of_known_directions():
    # unit vectors at angles 0°, 60° and 100°, of any length: the closest are 40° apart
    angles = np.deg2rad([0.0, 60.0, 100.0])
    x = np.array([[1.0], [20.0], [0.3]]) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert separation(x) == pytest.approx(2 * np.sin(np.deg2rad(20)), rel=1e-12)


def test_separation_is_the_smallest_over_all_pairs(key):
    x = np.asarray(gaussian(key, 6, 3))
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [(i, j, sign) for i in range(6) for j in range(i) for sign in (1, -1)]
    closest = min(np.linalg.norm(u[i] + sign * u[j]) for i, j, sign in pairs)
    assert separation(x) == pytest.approx(closest, rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, -1.0, 3.0, -0.2])
def test_separation_is_zero_for_parallel_points(factor, key):
    x = gaussian(key, 5, 4)
    assert separation(x) > 0.05
    assert separation(x.at[4].set(factor * x[1])) < 1e-15


def test_parallel_pairs_are_those_that_point_the_same_way():
    x = np.array([[1.0, 2.0], [0.0, 0.0], [-1.0, -2.0], [2.0, 4.0], [0.0, 0.0], [1.0, 2.0 + 1e-9]])
    assert parallel_pairs(x) == [(0, 3)]


def test_parallel_pairs_agree_with_a_separation_of_zero(key):
    x = gaussian(key, 30, 3)
    assert parallel_pairs(x) == []
    assert parallel_pairs(x.at[20].set(0.3 * x[7])) == [(7, 20)]
    assert parallel_pairs(np.zeros((3, 2))) == []


# --- tables of numbers ----------------------------------------------------------------------------

NUMBERS = "1,2,3\n4,5,7\n0.5,-1e2,9\n"
X = np.array([[1.0, 2, 3], [4, 5, 7], [0.5, -100, 9]])


def read(text, **options):
    return read_data(io.StringIO(text), **options)


def test_a_file_of_numbers_is_read_as_it_stands(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(NUMBERS)
    for place in (path, str(path)):
        x = read_data(place)
        np.testing.assert_array_equal(x, X)
        assert x.dtype == np.float64


@pytest.mark.parametrize("header", ["a,b,c", "a, b , c", '"a","b","c"', "0,1,2"])
def test_a_header_is_no_sample(header):
    np.testing.assert_array_equal(read(f"{header}\n{NUMBERS}"), X)


def test_what_pandas_and_numpy_write_is_read_back(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    for text in (frame.to_csv(), frame.to_csv(index=False), pd.DataFrame(X).to_csv()):
        np.testing.assert_array_equal(read(text), X)
    np.savetxt(tmp_path / "x.csv", X, delimiter=",")
    np.testing.assert_array_equal(read_data(tmp_path / "x.csv"), X)


def test_columns_are_chosen_by_name():
    np.testing.assert_array_equal(read("a,b,c\n" + NUMBERS, columns=["c", "a"]), X[:, [2, 0]])
    named = "a,b,species\n1,2,setosa\n3,4,virginica\n"
    np.testing.assert_array_equal(read(named, columns=["a", "b"]), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"columns: expected names among .*, got \['d'\]"):
        read("a,b,c\n" + NUMBERS, columns=["a", "d"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n3,\n", r"finite number in every entry, got '' in line 3, column b"),
        ("a,b\n1,2\n3,NaN\n", r"finite number in every entry, got 'NaN' in line 3, column b"),
        ("1,2\n3,inf\n", r"finite number in every entry, got 'inf' in line 2, column 1"),
        ("a,b\n1,red\n3,blue\n", r"finite number .*, got 'red' in line 2, column b and 1 more"),
        ("\n\na,b\n\n1,2\n\n3,x\n", r"finite number .*, got 'x' in line 7, column b"),
        ('"a\nb",c\n1,2\n3,x\n', r"finite number .*, got 'x' in line 4, column c"),
        ("1,red\n3,4\n", r"finite number .*, got 'red' in line 1, column 1"),
        ("1|2\n3|4\n", r"finite number .*, got '3\|4' in line 2, .*sep=',', decimal='\.'\)"),
        ("1.234,5;2\n3,5;4\n", r"finite number .*, got '1.234,5' in line 1, .*sep=';'"),
        ("1,2\n", r"at least two rows of numbers, got 1"),
        ("a,b\n1,2\n", r"at least two rows of numbers, got 1"),
        ("a,b\n", r"at least two rows of numbers, got 0"),
        ("", r"CSV file of numbers, got an empty file"),
        (" \n\n", r"CSV file of numbers, got an empty file"),
        ("1,2\n3,4,5\n", r"as many entries .* line 1, 2, got 3 in line 2 \(read with sep=','\)"),
        ("1,2\n\n3\n", r"as many entries .* line 1, 2, got 1 in line 3"),
        ("some words\nin lines\n", r"finite number .*, got 'in' in line 2, .*sep=' '"),
    ],
)
def test_a_bad_file_is_an_error_that_says_what_is_wrong_and_where(text, complaint):
    with pytest.raises(ValueError, match=rf"^path: expected (a |an )?{complaint}"):
        read(text)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_data(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "name",
    ["age", "NA", "None", "null", "nan", "NaN", "N/A", "n/a", "NULL", "#N/A", "<NA>", "-nan"],
)
def test_a_column_may_have_a_name_that_pandas_takes_for_missing(name):
    np.testing.assert_array_equal(read(f"{name},income\n10,2\n30,4\n"), [[10, 2], [30, 4]])
    np.testing.assert_array_equal(read(f"income,{name}\n10,2\n30,4\n"), [[10, 2], [30, 4]])
    chosen = read(f"{name},income\n10,2\n30,4\n", columns=[name])
    np.testing.assert_array_equal(chosen, [[10], [30]])


def test_a_first_column_without_a_name_still_holds_row_numbers():
    np.testing.assert_array_equal(read(",NA\n0,2\n1,4\n"), [[2], [4]])


@pytest.mark.parametrize("entry", ["NA", "null", "None", "nan", ""])
def test_an_entry_that_is_missing_is_an_error_and_not_a_number(entry):
    with pytest.raises(ValueError, match=r"path: .* line 3, column b"):
        read(f"a,b\n1,2\n3,{entry}\n")


TABLES = {
    "tabs": NUMBERS.replace(",", "\t"),
    "semicolons": NUMBERS.replace(",", ";"),
    "blanks": NUMBERS.replace(",", "   "),
    "commas and blanks": NUMBERS.replace(",", " , "),
    "decimal commas": "1;2;3\n4;5;7\n0,5;-1e2;9\n",
    "decimal commas everywhere": "1,0;2,0;3,0\n4,0;5,0;7,0\n0,5;-1,0e2;9,0\n",
    "decimal commas and tabs": "1,0\t2,0\t3,0\n4,0\t5,0\t7,0\n0,5\t-1,0e2\t9,0\n",
    "lines of Windows": NUMBERS.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + NUMBERS,
    "blank lines": NUMBERS.replace("\n", "\n\n"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("header", ["", "a{0}b{0}c\n", '"x, y"{0}"p; q"{0}c\n'])
def test_separator_and_decimal_are_found_in_the_file(name, header, tmp_path):
    separator = next((s for s in "\t;," if s in TABLES[name]), " ")
    mark, text = ("\ufeff", TABLES[name][1:]) if name == "a byte order mark" else ("", TABLES[name])
    path = tmp_path / "mine.csv"
    path.write_bytes((mark + header.format(separator) + text).encode())
    np.testing.assert_array_equal(read_data(path), X)


def test_separator_and_decimal_may_be_given():
    np.testing.assert_array_equal(read(NUMBERS.replace(",", "|"), sep="|"), X)
    np.testing.assert_array_equal(read("1,5\n2,5\n", sep=";", decimal=","), [[1.5], [2.5]])
    np.testing.assert_array_equal(read("1,5\n2,5\n"), [[1, 5], [2, 5]])
    with pytest.raises(ValueError, match=r"'0,5' in line 3, column 0 .*decimal='\.'"):
        read(TABLES["decimal commas"], decimal=".")
    with pytest.raises(ValueError, match=r"'1\.5' in line 1, column 0 .*decimal=','"):
        read("1.5;2\n3;4\n", decimal=",")


def test_a_number_with_a_point_is_not_taken_for_thousands_where_others_have_a_comma():
    with pytest.raises(ValueError, match=r"got '0,5' in line 2, column 1"):
        read("3.5;4\n1.234;0,5\n")


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_rows_is_warned_of_by_name_and_index(first):
    rows = [f"{row},{first + i}\n" for i, row in enumerate(NUMBERS.split())]
    with pytest.warns(RowNumberWarning, match="column sample counts the rows") as caught:
        x = read("a,b,c,sample\n" + "".join(rows))
    assert x.shape == (3, 4)
    assert caught[0].message.indices == [3]
    assert issubclass(RowNumberWarning, DataWarning)
    read("a,b,c,sample\n" + "".join(rows), columns=["a", "b", "c"])  # warnings are errors


def test_a_single_column_that_counts_is_the_data():
    np.testing.assert_array_equal(read("1\n2\n3\n"), [[1], [2], [3]])


YEARS = "2019,2020,2021\n"


def test_a_first_line_of_numbers_that_looks_like_a_header_is_warned_of():
    with pytest.warns(HeaderWarning, match="say header=True, or header=False") as caught:
        x = read(YEARS + NUMBERS)
    assert len(x) == 4
    assert caught[0].message.indices == [0]
    assert issubclass(HeaderWarning, DataWarning)


def test_whether_the_first_line_is_a_header_can_be_said():
    np.testing.assert_array_equal(read(YEARS + NUMBERS, header=True), X)
    np.testing.assert_array_equal(
        read(YEARS + NUMBERS, header=True, columns=["2021", "2019"]), X[:, [2, 0]]
    )
    assert len(read(YEARS + NUMBERS, header=False)) == 4
    np.testing.assert_array_equal(read("0,1,2\n" + NUMBERS, header=False)[0], [0, 1, 2])
    with pytest.raises(ValueError, match="got 'a' in line 1, column 0"):
        read("a,b,c\n" + NUMBERS, header=False)


@pytest.mark.parametrize("first", ["2019,2020,2022", "2019.5,2020.5,2021.5", "1,2,3", "9,9,9"])
def test_a_first_line_that_may_well_be_a_sample_is_none_to_warn_of(first):
    assert len(read(f"{first}\n{NUMBERS}")) == 4


def test_separation_of_half_precision_samples_is_that_of_their_float64_copy():
    x = (np.eye(3) * 300 + 1).astype(np.float16)
    assert separation(x) == separation(x.astype(np.float64)) == pytest.approx(1.40949962, rel=1e-6)


@pytest.mark.parametrize("size", [1e-150, 1e150, 1e155, 1e300])
def test_separation_is_the_same_at_any_scale(size):
    x = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, 3.0]])
    assert separation(size * x) == pytest.approx(separation(x), rel=1e-14)
    assert separation(np.array([[size, size], [1.0, 1.0]])) < 1e-15
