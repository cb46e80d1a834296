<?php

/**
 * A small Symfony application out of Debian's packages, as its skeleton makes one: FrameworkBundle with a compiled
 * container, compiled routes and a controller, in production mode. /index.php/shelf/3 is a list of links.
 */

use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
use Symfony\Component\DependencyInjection\Loader\Configurator\ContainerConfigurator;
use Symfony\Component\EventDispatcher\EventSubscriberInterface;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpKernel\Event\ResponseEvent;
use Symfony\Component\HttpKernel\Kernel;
use Symfony\Component\HttpKernel\KernelEvents;
use Symfony\Component\Routing\Generator\UrlGeneratorInterface;
use Symfony\Component\Routing\Loader\Configurator\RoutingConfigurator;

// A PHP built by scripts/build-php.sh looks elsewhere.
set_include_path('/usr/share/php');
require '/usr/share/php/Symfony/Bundle/FrameworkBundle/autoload.php';

final class Shelves
{
    public function __construct(private UrlGeneratorInterface $router)
    {
    }

    public function __invoke(Request $request, int $shelf): Response
    {
        $text = "<!DOCTYPE html>\n<title>Shelf $shelf</title>\n<ul>\n";
        for ($book = 1; $book <= 20; $book++) {
            $link = $this->router->generate('book', ['shelf' => $shelf, 'book' => $book]);
            $text .= '<li><a href="' . htmlspecialchars($link) . '">' . htmlspecialchars("Book <$book>") . "</a>\n";
        }
        return new Response($text . '</ul><p>' . htmlspecialchars($request->getPathInfo()) . "</p>\n");
    }
}

final class Frame implements EventSubscriberInterface
{
    public static function getSubscribedEvents(): array
    {
        return [KernelEvents::RESPONSE => 'onResponse'];
    }

    public function onResponse(ResponseEvent $event): void
    {
        $event->getResponse()->headers->set('X-Frame-Options', 'DENY');
    }
}

final class App extends Kernel
{
    use MicroKernelTrait;

    public function registerBundles(): iterable
    {
        return [new FrameworkBundle()];
    }

    public function getProjectDir(): string
    {
        return __DIR__;
    }

    private function configureContainer(ContainerConfigurator $container): void
    {
        $container->extension('framework', ['secret' => 'of this comparison', 'test' => false]);
        $services = $container->services()->defaults()->autowire()->autoconfigure();
        $services->set(Shelves::class, Shelves::class)->tag('controller.service_arguments')->public();
        $services->set(Frame::class, Frame::class);
    }

    private function configureRoutes(RoutingConfigurator $routes): void
    {
        $routes->add('shelf', '/shelf/{shelf}')->controller(Shelves::class)->requirements(['shelf' => '\d+']);
        $routes->add('book', '/shelf/{shelf}/book/{book}')->controller(Shelves::class);
    }
}

$kernel = new App('prod', false);
$request = Request::createFromGlobals();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
