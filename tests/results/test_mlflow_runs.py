"""Where the report's links lead."""

from orchestrator.results.mlflow_runs import MlflowRuns

RUNS = {"01-a": "f00"}


def test_a_served_registry_is_linked_and_a_database_where_it_would_be_served() -> None:
    served = MlflowRuns(tracking_uri="https://host/mlflow/", experiment_id="7", model="m", runs=RUNS)
    assert served.served and served.page_of("01-a") == "https://host/mlflow/#/experiments/7/runs/f00"
    own = served.model_copy(update={"tracking_uri": "sqlite:////runs/mlflow.db"})
    assert not own.served and own.page_of("01-a") == "http://127.0.0.1:5000/#/experiments/7/runs/f00"
    assert served.page_of("02-b") is None
