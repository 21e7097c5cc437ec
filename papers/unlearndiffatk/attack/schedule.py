"""The noise levels of a search."""


def attack_times(num: int, total: int = 1000) -> list[int]:
    """`num` times in rising order: start total // num // 2, stride total // num (10, 30, ..., 990 for 50 of 1000).

    Raises ValueError if there are more times than noise levels.
    """
    if not 1 <= num <= total:
        raise ValueError(f"{num} times do not fit into {total} noise levels")
    stride = total // num
    return [stride // 2 + stride * index for index in range(num)]
