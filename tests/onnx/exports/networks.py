"""The PyTorch networks that make.py exports."""

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(20, 32),
            nn.ELU(alpha=0.7),
            nn.LayerNorm(32),
            nn.Linear(32, 32),
            nn.SELU(),
            nn.Dropout(0.3),
            nn.Linear(32, 16),
            nn.CELU(alpha=1.5),
            nn.Linear(16, 3),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, x):
        return self.layers(x)


class MobileBlock(nn.Module):
    """An inverted residual as in MobileNet V3: depthwise convolution, squeeze and excite, hard swish."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.Hardswish(),
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(24, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 24, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x):
        inner = self.depthwise(self.expand(x))
        return x + self.project(inner * self.squeeze(inner))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.one = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.BatchNorm2d(12),
        )
        self.down = nn.Conv2d(12, 24, 3, stride=2, padding=2, dilation=2)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = F.relu(x + self.one(x))
        return self.head(self.down(x).mean((2, 3)))


class Pools(nn.Module):
    def forward(self, x):
        a = F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
        b = F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=True)
        c = F.max_pool2d(x, 3, stride=1, dilation=2)
        d = F.lp_pool2d(x, 2.0, 2)
        return a, b, c.flatten(1), d.amax((2, 3))


class Sequence(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.recurrent = kind(12, 10, batch_first=True, **options)
        self.head = nn.Linear(20 if options.get("bidirectional") else 10, 4)

    def forward(self, tokens):
        outputs, _ = self.recurrent(self.embed(tokens))
        return self.head(outputs[:, -1]), outputs


class TimeFirst(nn.Module):
    """Steps before rows, the default of PyTorch's recurrent layers."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(6, 9, num_layers=2)

    def forward(self, x):
        outputs, (h, c) = self.recurrent(x)
        return outputs, h, c


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(60, 16)
        self.position = nn.Parameter(torch.randn(32, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(
            16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens, mask):
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        x = self.layers(x, src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).to(x.dtype)
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.head(pooled), F.normalize(pooled, dim=1)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.project = nn.Linear(16, 48)
        self.head = nn.Linear(16, 40)

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = (
            self.project(x).view(x.shape[0], x.shape[1], 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        )
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x.transpose(1, 2).flatten(2))


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x):
        a = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        b = F.interpolate(x, scale_factor=2.0, mode="nearest")
        c = F.interpolate(x, size=(5, 7), mode="bicubic", align_corners=False)
        return a, b, c, self.up(x)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.group = nn.GroupNorm(2, 6)
        self.instance = nn.InstanceNorm1d(6, affine=True)
        self.rms = nn.RMSNorm(11)
        self.prelu = nn.PReLU(6, init=0.2)

    def forward(self, x):
        return self.prelu(self.group(x)), self.instance(x), self.rms(x)


class Temporal(nn.Module):
    """A causal, dilated convolution over time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(5, 5, 3, dilation=2**n) for n in range(3))

    def forward(self, x):
        for n, layer in enumerate(self.layers):
            x = x + torch.tanh(layer(F.pad(x, (2 * 2**n, 0))))
        return F.glu(x.repeat(1, 2, 1), dim=1)


class Mixture(nn.Module):
    """The best two of four experts."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.Parameter(torch.randn(4, 8, 8) * 0.3)

    def forward(self, x):
        values, chosen = torch.topk(self.gate(x), 2, dim=1)
        every = torch.einsum("...i,eij->...ej", x, self.experts)
        taken = torch.gather(every, 1, chosen.unsqueeze(-1).expand(-1, -1, 8))
        return (taken * F.softmax(values, 1).unsqueeze(-1)).sum(1), chosen


class Statistics(nn.Module):
    def forward(self, x):
        large = torch.logsumexp(x, 1)
        return (
            large,
            x.std(1),
            x.cumsum(1),
            x.argmax(1),
            x > 10.0,
            torch.nan_to_num(x / 0.0 * 0.0, nan=-1.0),
        )


class Fields(nn.Module):
    """A recommender with inputs of mixed types: categories in, a score out."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(30, 8), nn.EmbeddingBag(30, 8, mode="mean")
        self.bias = nn.Linear(4, 1)

    def forward(self, user, items, numbers):
        score = (self.user(user) * self.item(items)).sum(1, keepdim=True) + self.bias(numbers)
        return torch.sigmoid(score), torch.round(score * 10).to(torch.int32)


class Masked(nn.Module):
    """A BOOL input, as masks are exported."""

    def forward(self, x, mask):
        filled = x.masked_fill(~mask, float("-inf"))
        return F.softmax(filled, 1), torch.where(mask, x, torch.zeros_like(x)).sum(1), mask.any(1)


class Pixels(nn.Module):
    """UINT8 images, as cameras record them."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")

    def forward(self, image):
        x = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return F.pixel_shuffle(torch.relu(self.convolution(x)), 2)


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6).double()

    def forward(self, x):
        return (
            torch.linalg.vector_norm(self.layer(x), dim=1),
            torch.tanh(x / 100),
            torch.log1p(x.abs()),
        )


class Sampled(nn.Module):
    def forward(self, x, grid):
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class Windows(nn.Module):
    def forward(self, x):
        return (
            x.unfold(1, 4, 2).mean(-1),
            torch.roll(x, 2, 1),
            x.flip(1),
            torch.tril(x.unsqueeze(1) * x.unsqueeze(2)),
        )
