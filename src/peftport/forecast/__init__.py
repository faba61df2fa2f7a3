"""How much of a module a copy will keep on another host of the same shape, told beforehand."""

from peftport.forecast.forecast import Forecast, forecast

__all__ = ["Forecast", "forecast"]
