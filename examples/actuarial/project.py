"""Projects the cash flows of life policies: a program of files, as actuarial tools are.

    project.py ASSUMPTIONS.json INPUTS OUTPUTS

INPUTS holds policies.csv with the columns policy, kind (term or endowment), age, years, sum_assured, premium (a year). OUTPUTS gets
values.csv, a row for each policy, and cashflows.csv, a row for each year. It knows nothing of a grid.

Lives are taken year by year. At its start those in force pay the premium and cause expenses, in the year they die by Makeham's law,
mu(x) = a + b c^x, and claims are paid at its end, when a part of the survivors lapses with nothing. An endowment pays those who are left. All
values are expected ones, discounted at the rate of interest.
"""

import csv
import json
import math
import os
import sys

FIELDS = ("policy", "kind", "reserve", "claims", "premiums", "expenses", "duration")


def death(assumptions, age):
    """The chance to die within a year (W. M. Makeham, 1860, integrated over the year)."""
    a, b, c = (assumptions["makeham"][name] for name in "abc")
    return 1.0 - math.exp(-(a + b * c**age * (c - 1.0) / math.log(c)))


def project(assumptions, policy, flows):
    """Values of one policy; its cash flows are added to those of each year."""
    discount = 1.0 / (1.0 + assumptions["interest"])
    age, years = int(policy["age"]), int(policy["years"])
    sum_assured, premium = float(policy["sum_assured"]), float(policy["premium"])
    alive = 1.0
    claims = premiums = expenses = weighted = 0.0
    for year in range(years):
        paid, spent = alive * premium, alive * assumptions["expense"] * (1.0 + assumptions["inflation"]) ** year
        dies = alive * death(assumptions, age + year)
        benefit = dies * sum_assured
        alive = (alive - dies) * (1.0 - assumptions["lapse"])
        if policy["kind"] == "endowment" and year + 1 == years:
            benefit += alive * sum_assured
        now, end = discount**year, discount ** (year + 1)
        premiums += paid * now
        expenses += spent * now
        claims += benefit * end
        weighted += (year + 1) * benefit * end
        of_year = flows.setdefault(year, [0.0, 0.0, 0.0])
        for at, flow in enumerate((paid, benefit, spent)):
            of_year[at] += flow
    return claims + expenses - premiums, claims, premiums, expenses, weighted / claims


def main(assumptions_file, inputs, outputs):
    with open(assumptions_file, encoding="utf-8") as file:
        assumptions = json.load(file)
    flows = {}
    with open(os.path.join(inputs, "policies.csv"), encoding="utf-8", newline="") as file, open(
        os.path.join(outputs, "values.csv"), "w", encoding="utf-8", newline=""
    ) as out:
        values = csv.writer(out)
        values.writerow(FIELDS)
        for policy in csv.DictReader(file):
            if policy["kind"] not in ("term", "endowment"):
                sys.exit(f"policy {policy['policy']}: kind is `{policy['kind']}`; it must be term or endowment")
            values.writerow([policy["policy"], policy["kind"], *map(repr, project(assumptions, policy, flows))])
    with open(os.path.join(outputs, "cashflows.csv"), "w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(("year", "premiums", "claims", "expenses"))
        table.writerows((year, *map(repr, flow)) for year, flow in sorted(flows.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
